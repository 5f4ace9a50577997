"""`tgen info`: what a folder holds, whether it will run, its defaults; and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_checkpoint
from tgen.errors import CheckpointError, UsageError
from tgen.spec.records import Alibi
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.spec.records import RopeSpec, StackSpec


def info(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="A folder or a name, as for --model.", show_default=False)] = None,
    json: p.Json = False,
    model: p.Model = None,
) -> int:
    """Show what a model folder holds, whether it will run, and its defaults. A broken folder is an error with exit code 3.

    Reads headers only: a file of many gigabytes takes no longer than a small one.
    """
    messages.configure("auto", quiet=False)
    if name is not None and model is not None:
        raise UsageError("give the model as an argument or as --model, not both")
    checkpoint = chosen_checkpoint(name or model)
    facts = dict(_facts(checkpoint))
    problem = _tokenizer_problem(checkpoint, facts)
    facts["runs"] = problem is None
    if json:
        write_json(facts)
    else:
        width = max(map(len, facts))
        write_text("".join(f"{key.replace('_', ' '):{width}}  {_shown(value)}\n" for key, value in facts.items()))
    if problem is not None:
        messages.report(problem)
        return problem.exit_code
    return 0


def _facts(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    from tgen.checkpoint.container import end_tokens, start_token
    from tgen.checkpoint.safetensors import weight_bytes
    from tgen.options import FROM_MODEL, resolve
    from tgen.spec.shapes import parameter_count

    spec = checkpoint.spec
    stack = list(spec.stacks.values())[-1]
    layers = stack.layers
    attention, mlp = layers[0].attention, layers[0].mlp
    yield "folder", str(checkpoint.folder.resolve())
    yield "model_type", checkpoint.model_type
    yield "kind", spec.kind
    yield "parameters", parameter_count(spec)
    yield "weight_bytes", weight_bytes(checkpoint.stored)
    yield "stored_as", sorted({tensor.dtype for tensor in checkpoint.stored.values()})
    for name, part in spec.stacks.items():
        yield ("layers" if len(spec.stacks) == 1 else f"{name}_layers"), len(part.layers)
    yield "width", spec.width
    yield "feed_forward", f"{mlp.width}, {mlp.activation}{', gated' if mlp.gated else ''}"
    yield "heads", attention.heads
    yield "key_value_heads", attention.kv_heads
    yield "head_width", attention.head_dim
    yield "positions", _positions(stack)
    yield "vocabulary", spec.vocab
    yield "context", spec.context
    kept = spec.decoder.layers if spec.decoder else ()
    yield "cache_bytes_per_token", sum(8 * layer.attention.kv_heads * layer.attention.head_dim for layer in kept)
    start = start_token(checkpoint)
    yield "start_tokens", [] if start is None else [start]
    yield "end_tokens", sorted(end_tokens(checkpoint))
    resolved = resolve({}, {}, checkpoint.generation)
    yield "defaults", {name: getattr(resolved.options, name) for name in FROM_MODEL}
    yield "set_by_model", [name for name in FROM_MODEL if resolved.origins[name] == "model"]


def _tokenizer_problem(checkpoint: Checkpoint, facts: dict[str, Any]) -> CheckpointError | None:
    """Add what the tokenizer holds; what is wrong with it is returned, so that the rest is still shown."""
    from tgen.text.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    except CheckpointError as error:
        return error
    facts["tokenizer"] = f"{tokenizer.kind}, {tokenizer.size()} entries"
    return None


def _positions(stack: StackSpec) -> str:
    windows = sorted({layer.attention.window for layer in stack.layers if layer.attention.window})
    window = f", window {', '.join(map(str, windows))}" if windows else ""
    ropes = {layer.attention.rope: None for layer in stack.layers if layer.attention.rope}
    if stack.positions is not None:
        return f"{stack.positions.kind}{window}"
    if stack.bias is not None:
        return f"{'ALiBi' if isinstance(stack.bias, Alibi) else 'relative buckets'}{window}"
    return f"rotary, {'; '.join(map(_rope, ropes))}{window}" if ropes else f"none{window}"


def _rope(rope: RopeSpec) -> str:
    scaling = "" if rope.scaling is None else f", {type(rope.scaling).__name__} by {rope.scaling.factor:g}"
    return f"theta {rope.theta:g}{scaling}"


def _shown(value: Any) -> str:
    """A fact for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
