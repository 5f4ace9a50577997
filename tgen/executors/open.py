"""Chooses the executor for an opened checkpoint and loads the weights. It imports torch only if torch runs the model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tgen.errors import UnsupportedError, UsageError
from tgen.executors.formats import has_accelerator
from tgen.executors.native import library
from tgen.executors.native import open as native
from tgen.files import current_folder_is_gone
from tgen.options import RunOptions
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameter_count

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.executors.session import LoadedModel
    from tgen.executors.torch.transformer import Transformer

QUANTIZE_HINT = "leave --quantize out, or use --executor native --device cpu"


def why_torch(spec: ModelSpec, options: RunOptions) -> str | None:
    """Why torch runs the model and not the native executor; None if the native executor runs it.

    Raises UsageError if the user asks for the native executor or for quantised weights and it cannot run the model, UnsupportedError if
    torch is not installed.
    """
    reason = _reason(spec, options)
    if options.executor == "torch" and options.quantize != "none":
        raise UsageError(f"--quantize {options.quantize} and --executor torch exclude each other", QUANTIZE_HINT)
    if reason is not None and options.quantize != "none":
        message = f"--quantize {options.quantize} needs the native executor, and torch would run this model: {reason}"
        raise UsageError(message, "leave --quantize out" if options.executor == "auto" and options.device == "cpu" else QUANTIZE_HINT)
    if reason is not None:
        require_torch("this model", "" if options.executor == "torch" else f"the native executor does not run it: {reason}")
    return reason


def _reason(spec: ModelSpec, options: RunOptions) -> str | None:
    if options.executor == "torch":
        return "asked for"
    if options.device in ("cuda", "mps"):
        obstacle: str | None = f"it runs on the CPU only, not on {options.device}"
    else:
        obstacle = library.load().problem or native.supports(spec)
    if options.executor == "native" and obstacle is not None:
        raise UsageError(f"the native executor cannot run this model: {obstacle}", "use --executor auto or torch")
    if options.executor == "auto" and options.device == "auto" and has_accelerator():
        return "it uses this machine's accelerator"
    return obstacle


def require_torch(what: str, reason: str = "") -> None:
    """Raise UnsupportedError if torch is not installed, naming what needs it and, if there is one, the reason.

    Raises UsageError in a folder that has been removed: there, torch's libraries end the process while they load.
    """
    if current_folder_is_gone():
        raise UsageError("the current folder does not exist any more", f"{what} needs PyTorch, which starts only in a folder that exists")
    if find_spec("torch") is None:
        reason = f"; {reason}" if reason else ""
        raise UnsupportedError(f"{what} needs PyTorch, which is not installed{reason}", "pip install torch")


def open_executor(checkpoint: Checkpoint, options: RunOptions) -> LoadedModel:
    """The loaded model, for every task but training and attention maps.

    Raises UsageError for a device that the machine lacks or an executor that cannot run the model, UnsupportedError if only torch can run
    it and is not installed, MemoryLimitError, CheckpointError.
    """
    if why_torch(checkpoint.spec, options) is None:
        return native.open_executor(checkpoint, options)

    from tgen.executors.torch.session import TorchExecutor

    return TorchExecutor(open_model(checkpoint, options))


def open_model(checkpoint: Checkpoint, options: RunOptions) -> Transformer:
    """The model as torch modules, for attention maps. Raises as `open_executor` does."""
    from tgen.executors.torch.load import DTYPES, load_model
    from tgen.executors.torch.placement import choose_device, choose_dtype, memory_errors, set_threads

    set_threads(options)
    device = choose_device(options)
    dtype = choose_dtype(options, device, DTYPES[checkpoint.matches.number_format], parameter_count(checkpoint.spec))
    with memory_errors("loading the weights"):
        return load_model(checkpoint, device, dtype)
