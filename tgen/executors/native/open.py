"""Opens a checkpoint on the native library: chooses kernel, threads and number format."""

from __future__ import annotations

import os

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array, check_repeats
from tgen.errors import MemoryLimitError
from tgen.executors.formats import NAMES
from tgen.executors.native import interface as c
from tgen.executors.native.library import kernels, load
from tgen.executors.native.model import NativeModel
from tgen.executors.native.session import NativeExecutor
from tgen.executors.native.weights import Weights, address
from tgen.options import RunOptions
from tgen.spec.records import ModelSpec

MOST_HEAD_NUMBERS = 1024  # the library keeps a head in a buffer of this size
NUMBER_FORMATS = {"auto": None, "float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def supports(spec: ModelSpec) -> str | None:
    """Why the library cannot run a model; None if it can."""
    layers = [layer for stack in spec.stacks.values() for layer in stack.layers]
    mixers = [layer.mixer for layer in layers] + [layer.cross for layer in layers if layer.cross is not None]
    if spec.embedding_width is not None:
        return "its embeddings have a width of their own"
    if any(mixer.latent is not None for mixer in mixers):
        return "its attention keeps one short vector for each token"
    if any(mixer.head_dim > MOST_HEAD_NUMBERS for mixer in mixers):
        return f"its heads are wider than {MOST_HEAD_NUMBERS} numbers"
    spread = [mixer for mixer in mixers if mixer.qk_norm is not None and mixer.qk_norm_span == "width"]
    if any(mixer.clip is not None or mixer.qk_norm_after_rope for mixer in spread):
        return "its norm of all heads follows a clip or a rotation"
    return None


def open_executor(checkpoint: Checkpoint, options: RunOptions, kernel: str | None = None) -> NativeExecutor:
    """The loaded model behind the engine's protocol, on the fastest kernel that runs here, or on a named one.

    Raises CheckpointError for NaN or infinity in the weights, MemoryLimitError.
    """
    library = load().library
    assert library is not None
    known = kernels(library)
    name = next(iter(known)) if kernel is None else kernel
    handle = library.tgen_model_new(options.threads or usable_cores())
    if not handle:
        raise MemoryLimitError("memory ran out while starting the threads", "use fewer threads (--threads)")

    def finite(number_format: int, array: Array) -> bool:
        return bool(library.tgen_finite(handle, number_format, address(array), array.size))

    wanted = NUMBER_FORMATS[options.dtype]
    weights = Weights(checkpoint.matches, wanted, finite)
    check_repeats(checkpoint.matches, weights.files)
    number_format = wanted or checkpoint.matches.number_format
    cache = c.FLOAT32 if number_format == "F32" else c.FLOAT16
    model = NativeModel(library, checkpoint.spec, weights, handle, known[name], cache)
    return NativeExecutor(model, f"{name} kernel, {NAMES[number_format]}, {model.threads} thread{'s' * (model.threads != 1)}")


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
