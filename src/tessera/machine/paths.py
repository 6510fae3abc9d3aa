"""The fast paths that a machine may have or lack. Each is tried once, on a tiny tensor, and never inferred from a name.

Whoever takes a fast path asks `has` first and otherwise takes the plain path, which gives the same numbers.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from tessera.config.merging import nearest
from tessera.errors import ConfigError

SWITCH = "TESSERA_WITHOUT"
"""The environment variable that switches fast paths off: names with commas between them."""


@dataclass(frozen=True)
class FastPath:
    """`attempt` raises where the machine lacks the path, or returns how far its numbers are from the plain path's."""

    about: str
    attempt: Callable[[], float]
    near: float = 0.0
    """The largest difference that is accepted."""
    slow: bool = False
    """Whether the attempt itself takes seconds, so that listing the paths must not make it."""


def has(name: str) -> bool:
    """Whether this machine has a fast path, and nobody switched it off. Raises ConfigError where SWITCH names none."""
    return not why_not(name)


def why_not(name: str) -> str:
    """Why a path is not taken; nothing where it is."""
    return f"switched off by {SWITCH}" if name in switched_off() else missing(name)


def switched_off() -> set[str]:
    names = {name.strip() for name in os.environ.get(SWITCH, "").split(",") if name.strip()}
    for name in names - set(PATHS):
        raise ConfigError(f"{SWITCH} names '{name}'{nearest(name, PATHS)}; known: {', '.join(PATHS)}.")
    return names


@cache
def missing(name: str) -> str:
    """Why the machine lacks a path; nothing where it has it."""
    path = PATHS[name]
    try:
        off = path.attempt()
    except Exception as error:  # an absent operator, instruction, library or compiler: each has an error of its own
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return "" if off <= path.near else f"its numbers are off by {off:.2g}"


def listed() -> Iterator[tuple[str, str, str]]:
    """Name, what it is, and whether it is used here, of every path; slow attempts are not made."""
    off = switched_off()
    for name, path in PATHS.items():
        if path.slow and name not in off:
            yield name, path.about, "tried when it is asked for"
        else:
            yield name, path.about, f"missing: {reason}" if (reason := why_not(name)) else "used"


def summary() -> str:
    """One line for a run: what it uses and what it does without."""
    states = {name: state for name, _, state in listed() if not state.startswith("tried")}
    used = [name for name, state in states.items() if state == "used"]
    without = [f"{name} ({state})" for name, state in states.items() if state != "used"]
    return f"Fast paths: {', '.join(used) or 'none'}." + (f" Without: {'; '.join(without)}." if without else "")


# The attempts.


def _tiny(rows: int = 4, inputs: int = 48, outputs: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    return torch.randn(rows, inputs, generator=noise), torch.randn(outputs, inputs, generator=noise)


def _packed(dtype: torch.dtype) -> float:
    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("torch was built without oneDNN")
    x, weight = _tiny()
    tiles = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
    product = torch.ops.mkldnn._linear_pointwise(x.to(dtype), tiles, None, "none", [], "")
    return float((product.float() - F.linear(x, weight)).abs().max())


def _int8() -> float:
    x, weight = _tiny()
    scale = weight.abs().amax(1).div(127).bfloat16()
    levels = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    wanted = F.linear(x.bfloat16().float(), levels.float()) * scale.float()
    return float((torch._weight_int8pack_mm(x.bfloat16(), levels, scale).float() - wanted).abs().max())


def _onednn_float32() -> float:
    """torch offers float32 by oneDNN only under the name of bf16, and a CPU with bf16 tiles takes it by its word."""
    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("torch was built without oneDNN")
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    x, weight = _tiny(256, 1024, 256)
    exact, before = x.double() @ weight.double().t(), matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        return float((x @ weight.t() - exact).abs().max())
    finally:
        matmul.fp32_precision = before


def _bf16() -> float:
    """The processor may have what oneDNN was told to do without (ONEDNN_MAX_CPU_ISA), so oneDNN is asked too."""
    if not torch.cpu._is_avx512_bf16_supported():
        raise RuntimeError("the processor only imitates bf16 products")
    return _packed(torch.bfloat16)


def _compiler() -> float:
    x = torch.arange(8.0)
    return float((torch.compile(lambda x: x.sin() + 1)(x) - (x.sin() + 1)).abs().max())


def _mallopt() -> float:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        raise RuntimeError("the C library is not glibc")
    return 0.0


def _prctl() -> float:
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "prctl"):
        raise RuntimeError("the system is not Linux")
    return 0.0


PATHS: dict[str, FastPath] = {
    "packed_float32": FastPath("drawing: matrices cut into oneDNN's tiles", lambda: _packed(torch.float32), 1e-4),
    "packed_bf16": FastPath("drawing: the same in bf16", lambda: _packed(torch.bfloat16), 0.25),
    "int8": FastPath("drawing: products of bf16 rows and int8 matrices", _int8, 0.5),
    "onednn_float32": FastPath("training: float32 products by oneDNN instead of MKL", _onednn_float32, 1e-3),
    "bf16": FastPath("training: bf16 products in hardware", _bf16, 0.25),
    "compiler": FastPath("torch.compile on the CPU", _compiler, 1e-5, slow=True),
    "mallopt": FastPath("training: freed memory is kept for the next step", _mallopt),
    "prctl": FastPath("several processes: workers end with their launcher", _prctl),
}
"""A machine without one of them takes the plain path."""
