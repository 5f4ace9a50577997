"""Loads an opened checkpoint as a model or an executor: chooses device and number format, reads the weights."""

from __future__ import annotations

import torch

from tgen.checkpoint.container import Checkpoint
from tgen.executors.torch.load import DTYPES, load_model
from tgen.executors.torch.placement import choose_device, choose_dtype, memory_errors, set_threads
from tgen.executors.torch.session import TorchExecutor
from tgen.executors.torch.transformer import Transformer
from tgen.options import RunOptions
from tgen.spec.shapes import parameter_count


def open_model(checkpoint: Checkpoint, options: RunOptions) -> Transformer:
    """The model, loaded and placed. Raises UsageError for a device that the machine lacks, MemoryLimitError, CheckpointError."""
    set_threads(options)
    device = choose_device(options)
    dtype = choose_dtype(options, device, DTYPES[checkpoint.matches.number_format], parameter_count(checkpoint.spec))
    with memory_errors("loading the weights"):
        return load_model(checkpoint, device, dtype)


def open_executor(checkpoint: Checkpoint, options: RunOptions) -> TorchExecutor:
    """The loaded model behind the engine's protocol."""
    return TorchExecutor(open_model(checkpoint, options))


def describe(model: Transformer) -> str:
    """Device, number format and threads, for people."""
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    return f"{model.device.type}, {str(model.dtype).removeprefix('torch.')}{threads}"
