"""Chooses the executor for an opened checkpoint and loads the weights. It imports torch only where torch is the choice."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tgen.errors import UnsupportedError, UsageError
from tgen.executors.formats import has_accelerator
from tgen.executors.native import library
from tgen.executors.native import open as native
from tgen.options import RunOptions
from tgen.spec.records import ModelSpec, PairScaling
from tgen.spec.shapes import parameter_count

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.executors.session import LoadedModel
    from tgen.executors.torch.transformer import Transformer


def why_torch(spec: ModelSpec, options: RunOptions) -> str | None:
    """Why torch runs the model and not the native executor; None if the native executor does.

    Raises UsageError if the user asks for the native executor and it cannot run the model, UnsupportedError if torch is not installed.
    """
    reason = _reason(spec, options)
    if reason is not None:
        require_torch("this model", "" if options.executor == "torch" else f"the native executor does not run it: {reason}")
    return reason


def _reason(spec: ModelSpec, options: RunOptions) -> str | None:
    if options.executor == "torch":
        return "asked for"
    if options.device in ("cuda", "mps"):
        obstacle: str | None = f"it runs on the CPU only, not on {options.device}"
    else:
        obstacle = library.load().problem or native.supports(spec) or _unknown_to_native(spec)
    if options.executor == "native" and obstacle is not None:
        raise UsageError(f"the native executor cannot run this model: {obstacle}", "use --executor auto or torch")
    if options.executor == "auto" and options.device == "auto" and has_accelerator():
        return "it uses this machine's accelerator"
    return obstacle


def _unknown_to_native(spec: ModelSpec) -> str | None:
    """The first part of a spec that only torch runs so far; None if there is none."""
    layers = [layer for stack in spec.stacks.values() for layer in stack.layers]
    mixers = [layer.mixer for layer in layers]
    outer = [norm for stack in spec.stacks.values() for norm in (stack.final_norm, stack.embedding_norm)]
    norms = [norm for norm in (*outer, *(layer.norm for layer in layers), *(mixer.qk_norm for mixer in mixers)) if norm is not None]
    found = {
        "embeddings of another width": spec.embedding_width is not None,
        "norms on outputs alone": any(layer.residual == "output" for layer in layers),
        "norms without a weight": any(not norm.weight for norm in norms),
        "layer norms without a bias": any(norm.kind == "layer" and not norm.has_bias for norm in norms),
        "the activation": any(layer.feed_forward.activation in ("relu2", "xielu") for layer in layers),
        "clipped queries and keys": any(mixer.clip is not None for mixer in mixers),
        "norms of all heads, or after the rotation": any(mixer.qk_norm_span != "head" or mixer.qk_norm_after_rope for mixer in mixers),
        "queries that grow": any(mixer.query_growth is not None for mixer in mixers),
        "a scaling for each rotated pair": any(mixer.rope is not None and isinstance(mixer.rope.scaling, PairScaling) for mixer in mixers),
    }
    return next((f"it does not know {what}" for what, there in found.items() if there), None)


def require_torch(what: str, reason: str = "") -> None:
    """Raise UnsupportedError if torch is not installed, naming what needs it and, if there is one, the reason."""
    if find_spec("torch") is None:
        reason = f"; {reason}" if reason else ""
        raise UnsupportedError(f"{what} needs PyTorch, which is not installed{reason}", "pip install torch")


def open_executor(checkpoint: Checkpoint, options: RunOptions) -> LoadedModel:
    """The loaded model, for every task but training and attention maps.

    Raises UsageError for a device that the machine lacks or an executor that cannot run the model, UnsupportedError without torch
    where only torch can, MemoryLimitError, CheckpointError.
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
