"""Finds the native executor's library and loads it once."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

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


def kernels(library: ctypes.CDLL) -> dict[str, int]:
    """The names of the kernels that this processor can run, with their numbers in the library; the fastest comes first."""
    found = {}
    number = 0
    while name := library.tgen_kernel_name(number):
        if library.tgen_kernel_runs(number):
            found[name.decode()] = number
        number += 1
    return found
