"""Which device, what it can do, and how to get it done fast. It knows nothing else."""

from __future__ import annotations

import ctypes
import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from tessera.errors import ConfigError
from tessera.machine.paths import has, why_not


def choose_device(name: str) -> torch.device:
    """auto is CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16, rather than imitating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and has("bf16")


def compiles(wish: str, device: torch.device) -> bool:
    """on, off, or auto: where there is CUDA. On a CPU it costs 10 to 40 s; see `docs/LOG.md`.

    Where there is no working compiler, nothing is compiled, and a warning says so.
    """
    if wish == "on" and device.type == "cpu" and (reason := why_not("compiler")):
        warnings.warn(f"Nothing is compiled: the compiler is missing ({reason}).", stacklevel=2)
        return False
    return wish == "on" or (wish == "auto" and device.type == "cuda")


# Memory.

REFUSALS = ("DefaultCPUAllocator", "bad_alloc", "could not create a memory", "could not create a primitive")
"""What torch's allocator and oneDNN say on a CPU; the last of them may mean other things, rarely."""


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says, on whatever device."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSALS)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of giving it back and asking for zeroed pages: a tenth to
    a third faster, and up to half as much memory again, because what is kept comes in pieces."""
    if glibc := _glibc():
        glibc.mallopt(MMAP_MAX, 0)
        glibc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Let glibc give every array pages of its own, and back with it: nothing is held but what a plan counts."""
    if glibc := _glibc():
        glibc.mallopt(MMAP_MAX, 65536)
        glibc.mallopt(MMAP_THRESHOLD, 65536)
        glibc.mallopt(TRIM_THRESHOLD, 65536)
        glibc.malloc_trim(0)


def release() -> None:
    """Give back what a failed attempt left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_freed_memory()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if has("mallopt") else None


# Products on a CPU. torch offers float32 by oneDNN only under the name of bf16.


def tune(device: torch.device) -> None:
    """Ask a CPU for what it does fastest; `docs/LOG.md` has what that is worth."""
    if device.type == "cpu":
        multiply_with_onednn()


def multiply_with_onednn() -> None:
    """float32 products by oneDNN instead of MKL: the same but for the order of sums, and up to 1.5 times as fast where
    MKL is slow (on AMD)."""
    if has("onednn_float32"):
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]  # the name, not the numbers


class _FewRows:
    """How many threads are inside, because what they change is shared by all of them."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, ""

    def enter(self, matmul: _Products) -> None:
        with self.lock:
            if not self.inside:
                self.before, matmul.fp32_precision = matmul.fp32_precision, "none"
            self.inside += 1

    def leave(self, matmul: _Products) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                matmul.fp32_precision = self.before


class _Products(Protocol):
    fp32_precision: str


_few_rows = _FewRows()


@contextmanager
def few_rows() -> Iterator[None]:
    """Inside, float32 products are MKL's again, which is twice as fast where a matrix meets but one row. Several
    threads may be inside at a time; the last one that leaves puts back what was before the first."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        yield
        return
    _few_rows.enter(matmul)
    try:
        yield
    finally:
        _few_rows.leave(matmul)
