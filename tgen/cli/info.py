"""`tgen info`: what a folder holds, whether it will run, its defaults; and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_checkpoint, chosen_folder
from tgen.errors import CheckpointError
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.checkpoint.folder import Checkpoint
    from tgen.spec import LayerSpec, ModelSpec


def info(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A folder or a name, as for --model.", show_default=False)] = None,
    json: p.Json = False,
    model: p.Model = None,
) -> int:
    """Show what a model folder holds, whether it will run, and its defaults. A broken folder is an error with exit code 3.

    Reads headers only: a file of many gigabytes takes no longer than a small one.
    """
    messages.configure("auto", quiet=False)
    folder = chosen_folder(name or model)
    checkpoint = chosen_checkpoint(name or model)
    facts = dict(_facts(checkpoint))
    problems = _tokenizer_facts(folder, checkpoint, facts)
    if json:
        write_json({**facts, "runs": not problems})
    else:
        width = max(map(len, facts))
        write_text("".join(f"{key:{width}}  {_shown(value)}\n" for key, value in facts.items()))
    for problem in problems:
        messages.error(problem.message, problem.hint)
    return problems[0].exit_code if problems else 0


def _facts(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    from tgen.checkpoint.folder import end_tokens, start_token
    from tgen.checkpoint.weights import weight_bytes
    from tgen.options import resolve
    from tgen.parameters import parameter_count

    spec = checkpoint.spec
    layer = spec.decoder.layers[0]
    yield "folder", str(checkpoint.folder.resolve())
    yield "family", f"{spec.family} (model_type {checkpoint.model_type}), decoder-only"
    yield "parameters", parameter_count(spec)
    yield "weights", f"{weight_bytes(checkpoint.stored) / 1e6:.1f} MB, {', '.join(sorted({t.dtype for t in checkpoint.stored.values()}))}"
    yield "layers", len(spec.decoder.layers)
    yield "width", f"{spec.width}, feed-forward {layer.mlp.width}{' gated' if layer.mlp.gated else ''} {layer.mlp.activation}"
    yield "heads", f"{layer.attention.heads}, {layer.attention.kv_heads} for keys and values, {layer.attention.head_dim} wide"
    yield "positions", _positions(spec, layer)
    yield "vocabulary", spec.vocab
    yield "context", spec.context
    yield "cache", f"{_cache_bytes(spec)} bytes a token in float32"
    yield "start token", start_token(checkpoint)
    yield "end tokens", sorted(end_tokens(checkpoint))
    resolved = resolve({}, {}, checkpoint.generation)
    for option in ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        yield option, f"{getattr(resolved.options, option):g} ({resolved.origins[option]})"


def _tokenizer_facts(folder: Path, checkpoint: Checkpoint, facts: dict[str, Any]) -> list[CheckpointError]:
    """Add what the tokenizer holds; what is wrong with it is returned, so that the rest is still shown."""
    from tgen.text.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(folder, checkpoint.spec.vocab)
    except CheckpointError as error:
        return [error]
    facts["tokenizer"] = f"{type(tokenizer.library.model).__name__}, {tokenizer.size()} entries"
    return []


def _positions(spec: ModelSpec, layer: LayerSpec) -> str:
    windows = sorted({layer.attention.window for layer in spec.decoder.layers if layer.attention.window})
    window = f", window {', '.join(map(str, windows))}" if windows else ""
    if spec.decoder.positions is not None:
        return f"learned{window}"
    if spec.decoder.bias is not None:
        return f"ALiBi{window}"
    rope = layer.attention.rope
    if rope is None:
        return f"none{window}"
    scaling = "" if rope.scaling is None else f", {type(rope.scaling).__name__} by {rope.scaling.factor:g}"
    return f"rotary, theta {rope.theta:g}{scaling}{window}"


def _cache_bytes(spec: ModelSpec) -> int:
    return sum(8 * layer.attention.kv_heads * layer.attention.head_dim for layer in spec.decoder.layers)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
