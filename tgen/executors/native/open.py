"""Opens a checkpoint on the native library: chooses kernel, threads and number format."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array
from tgen.errors import MemoryLimitError
from tgen.executors.native import interface as c
from tgen.executors.native.model import NativeModel
from tgen.executors.native.session import NativeExecutor
from tgen.executors.native.weights import Weights, address
from tgen.options import RunOptions
from tgen.spec.records import ModelSpec

NUMBER_FORMATS = {"auto": None, "float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def supports(spec: ModelSpec) -> str | None:
    """Why the library cannot run a model; None if it can."""
    return None


def open_executor(checkpoint: Checkpoint, options: RunOptions, library: ctypes.CDLL, kernel: int) -> NativeExecutor:
    """The loaded model behind the engine's protocol. Raises CheckpointError for NaN or infinity in the weights."""
    threads = options.threads or usable_cores()
    handle = library.tgen_model_new(threads)
    if not handle:
        raise MemoryLimitError("memory ran out while starting the threads", "use fewer threads (--threads)")

    def finite(number_format: int, array: Array) -> bool:
        return bool(library.tgen_finite(handle, number_format, address(array), array.size))

    wanted = NUMBER_FORMATS[options.dtype]
    weights = Weights(checkpoint.spec, checkpoint.matches, wanted, finite)
    cache = c.FLOAT32 if (wanted or checkpoint.matches.number_format) == "F32" else c.FLOAT16
    return NativeExecutor(NativeModel(library, checkpoint.spec, weights, handle, kernel, cache))


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and its group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, int(np.ceil(quota))))


def _quota() -> float | None:
    """Cores that the control group's quota allows; None for no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
