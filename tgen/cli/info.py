"""`tgen info`: shows the contents of a model folder, whether the model will run, its defaults, and its faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli.completion import model_names
from tgen.cli.opening import open_checkpoint
from tgen.errors import CheckpointError, UsageError
from tgen.options import RunOptions
from tgen.spec.positions import Alibi
from tgen.spec.records import ExpertsSpec
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

MEMORY = "Memory to run"

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.spec.positions import RopeSpec
    from tgen.spec.records import FeedForward, StackSpec
    from tgen.text.tokenizer import Tokenizer


@p.takes(without=("threads",))
def info(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", autocompletion=model_names, help="A folder or a name, as for --model.", show_default=False),
    ] = None,
    context: Annotated[
        int | None,
        p.option(
            "--context",
            "-c",
            panel=MEMORY,
            metavar="INT",
            limits="1 or more",
            default="as many as fit",
            help="Tokens of the prompt, or of the text that an encoder reads.",
        ),
    ] = None,
    new_tokens: Annotated[
        int | None,
        p.option(
            "--max-new-tokens",
            "-n",
            panel=MEMORY,
            metavar="INT",
            limits="1 or more",
            default="the model's",
            help="New tokens after them, in as many rows as the model's search has beams.",
        ),
    ] = None,
    json: p.Json = False,
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:
    """Show what a model folder holds, whether it will run, and its defaults. A broken folder is an error with exit code 3.

    It reads headers only: a file of many gigabytes takes no longer than a small one. The memory to run is the most that a whole process of
    `tgen generate` holds with the same --dtype and --quantize on the native executor: the process with its modules, as measured
    here, all weights, whether mapped from a file or copied, and the cache and buffers for a text of this length.
    """
    messages.configure("auto", quiet=False)
    for option, value in (("--context", context), ("--max-new-tokens", new_tokens)):
        p.check_least(option, 1 if value is None else value, 1)
    if name is not None and model is not None:
        raise UsageError("give the model as an argument or as --model, not both")
    from tgen.cli.memory import run_length  # needs NumPy, and --help does not

    checkpoint = open_checkpoint(name or model, vectors=True, adapters=run.adapter)
    facts = dict(_facts(checkpoint, run))
    length = run_length(checkpoint, context, new_tokens)
    tokenizer, fault = _tokenizer(checkpoint)
    if tokenizer is not None:
        facts["tokenizer"] = f"{tokenizer.kind}, {tokenizer.size()} entries"
    problems = [fault, _executor_problem(checkpoint, run, facts, length, tokenizer)]
    problem = next((one for one in problems if one is not None), None)
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


def _facts(checkpoint: Checkpoint, run: RunOptions) -> Iterator[tuple[str, Any]]:
    from tgen.checkpoint.generation import read_generation
    from tgen.checkpoint.safetensors import weight_bytes
    from tgen.executors.formats import BYTES, NAMES, NUMBER_FORMATS, automatic_format
    from tgen.options import FROM_MODEL, resolve
    from tgen.spec.cache import STATES, row_numbers, state_numbers
    from tgen.spec.shapes import active_parameter_count, parameter_count

    spec = checkpoint.spec
    stack = list(spec.stacks.values())[-1]
    layers = stack.layers
    yield "file" if checkpoint.folder.is_file() else "folder", str(checkpoint.folder.resolve())
    yield "model_type", checkpoint.model_type
    yield "kind", spec.kind
    count = parameter_count(spec)
    yield "parameters", count
    if (active := active_parameter_count(spec)) != count:
        yield "active_parameters", active
    yield "weight_bytes", weight_bytes(checkpoint.stored)
    yield "stored_as", sorted({tensor.stored_as for tensor in checkpoint.stored.values()})
    for name, part in spec.stacks.items():
        yield ("layers" if len(spec.stacks) == 1 else f"{name}_layers"), len(part.layers) * part.rounds
    if spec.head is None:
        yield "gives", "vectors only"
    if checkpoint.matches.left_out:
        yield "left_out", f"{len(checkpoint.matches.left_out)} tensors of parts that tgen does not run"
    yield "width", spec.width
    if parts := dict.fromkeys(_feed_forward(layer.feed_forward) for layer in layers if layer.feed_forward is not None):
        yield "feed_forward", "; ".join(parts)
    if stack.attentions:
        yield "heads", stack.attentions[0].heads
        yield "key_value_heads", stack.attentions[0].kv_heads
        yield "head_width", stack.attentions[0].head_dim
    yield "positions", _positions(stack)
    yield "vocabulary", spec.vocab
    yield "context", spec.context
    number_format = NUMBER_FORMATS[run.dtype] or automatic_format(checkpoint.matches.number_format, count)
    yield "computes_in", NAMES[number_format]
    yield "cache_bytes_per_token", BYTES[number_format] * row_numbers(spec, 1)
    if states := state_numbers(spec):
        yield "state_bytes", BYTES["F32"] * STATES * states
    yield "memory_of_weights", BYTES[number_format] * count
    generation = read_generation(checkpoint)
    yield "start_tokens", [] if generation.start_token is None else [generation.start_token]
    yield "end_tokens", sorted(generation.end_tokens)
    if spec.decoder:
        resolved = resolve({}, {}, generation.options)
        unused = resolved.unused() - ({"temperature"} if resolved.options.temperature == 0 else set())
        used = ((name, getattr(resolved.options, name)) for name in FROM_MODEL if name not in unused)
        yield "defaults", {name: value for name, value in used if value is not None}
        yield "set_by_model", [name for name in FROM_MODEL if resolved.origins[name] == "model"]


def _tokenizer(checkpoint: Checkpoint) -> tuple[Tokenizer | None, CheckpointError | None]:
    """The tokenizer, or its fault, which is not raised, so that the other facts are still shown."""
    from tgen.text.tokenizer import Tokenizer

    try:
        return Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab), None
    except CheckpointError as error:
        return None, error


def _executor_problem(
    checkpoint: Checkpoint, run: RunOptions, facts: dict[str, Any], length: dict[str, int], tokenizer: Tokenizer | None
) -> CheckpointError | None:
    """Add what will run the model, why it is not the native executor, and the memory. If nothing can run it, the error is returned."""
    from tgen.executors.native.forecast import forecast
    from tgen.executors.open import why_torch

    try:
        reason = why_torch(checkpoint.spec, run)
    except CheckpointError as error:
        return error
    facts["executor"] = "native" if reason is None else f"torch ({reason})"
    if reason is None:
        found = forecast(checkpoint, run)
        facts["computes_in"] = found.widths
        facts["cache_bytes_per_token"] = found.cache_bytes_per_token
        facts["memory_of_weights"] = found.weight_bytes
        if found.packed_file is not None:
            facts["packed_weights"] = str(found.packed_file)
        from tgen.cli.memory import memory_to_run

        facts |= memory_to_run(checkpoint, run, length, tokenizer)
    return None


def _feed_forward(part: FeedForward) -> str:
    """The inner width, the activation, and the gate; of a mixture, how many such experts there are."""
    if not isinstance(part, ExpertsSpec):
        return f"{part.width}, {part.activation}{', gated' if part.gated else ''}"
    shared = "" if part.shared is None else f", and {part.shared.width} for every token"
    return f"{part.router.experts} experts, {part.router.chosen} for each token: {_feed_forward(part.expert)}{shared}"


def _positions(stack: StackSpec) -> str:
    attentions = stack.attentions
    windows = sorted({attention.window for attention in attentions if attention.window})
    window = f", window {', '.join(map(str, windows))}" if windows else ""
    ropes = {attention.rope: None for attention in attentions if attention.rope}
    if stack.positions is not None:
        return f"{stack.positions.kind}{window}"
    if stack.relative is not None:
        return f"vectors of distances{window}"
    if attentions and attentions[0].distances is not None:
        return f"relative buckets{window}"
    if stack.bias is not None:
        return f"{'ALiBi' if isinstance(stack.bias, Alibi) else 'relative buckets'}{window}"
    return f"rotary, {'; '.join(map(_rope, ropes))}{window}" if ropes else f"none{window}"


def _rope(rope: RopeSpec) -> str:
    factor = getattr(rope.scaling, "factor", None)
    kind = type(rope.scaling).__name__.removesuffix("Scaling").lower()
    scaling = "" if rope.scaling is None else f", {kind} scaling" if factor is None else f", {kind} scaling by {factor:g}"
    return f"theta {rope.theta:g}{scaling}"


def _shown(value: Any) -> str:
    """A fact for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,}" if isinstance(number, int) else f"{name} {number:g}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
