"""Chooses the device and the number format in which a model runs, and reports when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tgen.errors import MemoryLimitError, UsageError
from tgen.executors.formats import available_memory, fits_as_float32
from tgen.options import RunOptions


def choose_device(options: RunOptions) -> torch.device:
    """The requested device; auto is CUDA, else MPS, else the CPU. Raises UsageError for a device that the machine lacks."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = options.device if options.device != "auto" else next(name for name, there in available.items() if there)
    if not available[name]:
        raise UsageError(f"--device {name}: torch finds no such device on this machine", "use --device cpu")
    return torch.device(name)


def choose_dtype(options: RunOptions, device: torch.device, stored: torch.dtype, parameter_count: int) -> torch.dtype:
    """The requested number format; auto is float32 on a CPU, because it rounds least, and the stored format on other devices.

    If float32 weights would fill most of the memory of a CPU, auto is the stored format, which is that of the model's matrices.
    """
    if options.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[options.dtype]
    if device.type != "cpu":
        return stored
    return torch.float32 if fits_as_float32(parameter_count, available_memory()) else stored


def set_threads(options: RunOptions) -> None:
    """Let torch use the number of threads in --threads, if the user gave one."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Within this context, torch's out-of-memory errors become a MemoryLimitError whose message names the work, `what`."""
    hint = "use a smaller model, fewer --samples, a shorter prompt, or --dtype bfloat16"
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MemoryLimitError(f"out of memory while {what}", hint) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise MemoryLimitError(f"out of memory while {what}", hint) from error
        raise
