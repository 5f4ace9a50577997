"""Makes a training step fast on this machine, by reused memory, the number format and the compiler."""

from __future__ import annotations

import ctypes
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch

from tgen.executors.torch.positions import prepare_compiler

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Ask glibc to reuse large freed blocks instead of returning them to the system.

    Every step allocates the same large tensors. The kernel must zero fresh pages, which costs about a sixth of the step.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether matrices multiply faster in bfloat16, as on GPUs since Ampere and CPUs with AMX. On a CPU the function times both."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return _multiply_seconds(torch.bfloat16) < 0.8 * _multiply_seconds(torch.float32)


def can_compile() -> bool:
    """Whether torch.compile finds the C++ compiler it needs on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function as torch.compile makes it for the shapes of its first call."""
    prepare_compiler()
    return torch.compile(function, dynamic=False, **options)


def _multiply_seconds(dtype: torch.dtype) -> float:
    a, b = torch.randn(1024, 512, dtype=dtype), torch.randn(512, 512, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return best
