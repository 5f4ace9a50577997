"""Finds the native executor's library and loads it once, and says which kernels and cores it may use here."""

from __future__ import annotations

import ctypes
import functools
import math
import os
from dataclasses import dataclass

from tgen.errors import MemoryLimitError
from tgen.executors.native.build import ABI, HERE, LIBRARY, PROBLEM
from tgen.executors.native.interface import declare

REBUILD = "python -m tgen.executors.native.build"


@dataclass(frozen=True, slots=True)
class Found:
    """The loaded library, or why there is none."""

    library: ctypes.CDLL | None
    problem: str | None = None


@functools.cache
def load() -> Found:
    """The library, if it exists, fits this machine and has this version's interface; else the reason why not."""
    path = HERE / LIBRARY
    if not path.is_file():
        reason = HERE / PROBLEM
        return Found(None, reason.read_text("utf-8") if reason.is_file() else f"its library is not built; `{REBUILD}` builds it")
    try:
        library = ctypes.CDLL(str(path))
        abi = library.tgen_abi()
    except (OSError, AttributeError) as error:
        return Found(None, f"its library does not load ({error}); `{REBUILD}` builds it anew")
    if abi != ABI:
        return Found(None, f"its library has interface {abi}, this version of tgen needs {ABI}; `{REBUILD}` builds it anew")
    return Found(declare(library))


def loaded() -> ctypes.CDLL:
    """The library, for a model that runs on it."""
    library = load().library
    assert library is not None
    return library


def new_handle(library: ctypes.CDLL, threads: int | None) -> int:
    """A model in the library, without anything but its threads; as many as cores by default. Raises MemoryLimitError."""
    handle = library.tgen_model_new(threads or usable_cores())
    if not handle:
        raise MemoryLimitError("memory ran out while starting the threads", "use fewer threads (--threads)")
    return int(handle)


def kernels(library: ctypes.CDLL) -> dict[str, int]:
    """The names of the kernels that this processor can run, with their numbers in the library; the fastest comes first."""
    found = {}
    number = 0
    while name := library.tgen_kernel_name(number):
        if library.tgen_kernel_runs(number):
            found[name.decode()] = number
        number += 1
    return found


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """The cores that the control group's quota allows; None if there is no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
