"""Which device, what it can do, and how to get it done fast. It knows nothing else."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tessera.errors import ConfigError


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
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def tune(device: torch.device) -> None:
    """Ask a CPU for what it does fastest; `docs/LOG.md` has what each of these is worth. No result changes but in the
    order of sums."""
    if device.type != "cpu":
        return
    keep_freed_memory()
    multiply_with_onednn()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of giving it back and asking for zeroed pages."""
    trim_threshold, mmap_max = -1, -4  # malloc.h
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says, on whatever device."""
    words = str(error)
    refused = "DefaultCPUAllocator" in words or "could not create a memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and refused)


def release() -> None:
    """Give back what a failed attempt left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def few_rows() -> Iterator[None]:
    """Inside, float32 products are MKL's again, which is twice as fast where a matrix meets but one row."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        yield
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "none"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def multiply_with_onednn() -> None:
    """float32 products by oneDNN instead of MKL: the same products up to 1.5 times as fast where MKL is slow (on AMD).

    torch offers that only under the name of bf16, which oneDNN then takes as a leave, not as a wish: where the CPU has
    bf16 tiles it would use them, so the numbers are looked at first.
    """
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None or not torch.backends.mkldnn.is_available():
        return
    noise = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 1024, generator=noise) for _ in range(2))
    exact, before = a.double() @ b.double().t(), matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if float((a @ b.t() - exact).abs().max()) > 1e-3:
        matmul.fp32_precision = before
