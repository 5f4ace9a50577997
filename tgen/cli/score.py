"""`tgen score`: measures how well a model predicts a text."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tgen.cli import options as p
from tgen.cli.opening import open_checkpoint, require_kind
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.cli.remote import chosen
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.cli.remote_client import Remote


@p.takes()
def score(
    text: TextArgument = None,
    file: p.File = None,
    tokens: Annotated[
        bool,
        p.option("--tokens", panel=p.OUTPUT, help="Before the sums, a line for each token: log-probability, id, token, tabs between."),
    ] = False,
    json: p.Json = False,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    server: p.Server = None,
    *,
    run: RunOptions,
) -> int:
    """Show how well a decoder-only model predicts a text: log-probability, perplexity, bits per byte.

    A token has the log-probability (a natural logarithm) that it has in `tgen generate --json` after the same text. Nothing predicts
    the first token, so it is not scored and its bytes do not count, unless the tokenizer puts a start token in front. A text longer
    than the context is read in windows that overlap by half.
    """
    source = PromptSource(text, file)
    remote = chosen(server, model, ("decoder-only",), run)
    checkpoint = open_checkpoint(model, adapters=run.adapter) if remote is None else remote.describe()
    require_kind(checkpoint, "score", "decoder-only")
    found = _local(checkpoint, source, tokens, run) if remote is None else _remote(remote, source.read(), tokens)
    _show(checkpoint.name, found, json)
    return 0


@dataclass(frozen=True, slots=True)
class Scored:
    """All ids of a text but the first, their log-probabilities, their pieces if these are to be shown, and how many bytes they are."""

    ids: list[int]
    pieces: list[str]
    logprobs: list[float]
    size: int


def _local(checkpoint: Checkpoint, source: PromptSource, tokens: bool, options: RunOptions) -> Scored:
    """Score a text. Raises TgenError."""
    from tgen.tasks.scoring import log_probabilities, scored_bytes, windowed
    from tgen.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab)
    content = source.read()
    ids = tokenizer.encode(content)
    _check_length(ids)
    pieces = [tokenizer.decode([token], special=True) for token in ids[1:]] if tokens else []

    from tgen.executors.open import open_executor

    read = functools.partial(log_probabilities, open_executor(checkpoint, options))
    parts = (part.tolist() for part in windowed(ids, checkpoint.spec.context, read))
    return Scored(ids[1:], pieces, _counted(parts, len(ids) - 1), scored_bytes(tokenizer, content, ids))


def _remote(remote: Remote, content: str, tokens: bool) -> Scored:
    """Let a server score a text. Raises TgenError."""
    records = remote.records("score", {"text": content, "tokens": tokens})
    first = next(records)
    _check_length(first["ids"])
    logprobs = _counted((record["logprobs"] for record in records), len(first["ids"]) - 1)
    return Scored(first["ids"][1:], first["pieces"], logprobs, first["size"])


def _check_length(ids: Sequence[int]) -> None:
    if len(ids) < 2:
        raise UsageError("the text is too short to score", "give at least two tokens: the first one is not scored")


def _counted(parts: Iterable[list[float]], total: int) -> list[float]:
    """All of the parts, with a bar."""
    from tgen.ui.counting import counting

    logprobs: list[float] = []
    with counting("scored", total) as bar:
        for part in parts:
            logprobs += part
            bar.add(len(part))
    return logprobs


def _show(model: str, scored: Scored, json: bool) -> None:
    """Write the sums, after a line for each token if there are `pieces`."""
    from tgen.tasks.score import Score

    ids, pieces, logprobs, size = scored.ids, scored.pieces, scored.logprobs, scored.size
    result = Score(math.fsum(logprobs), len(logprobs), size)
    if json:
        sums = {"tokens": result.tokens, "bytes": size, "logprob": result.log_probability}
        sums |= {"perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte}
        listed = [{"id": i, "token": t, "logprob": v} for i, t, v in zip(ids, pieces, logprobs, strict=True)] if pieces else None
        write_json({"model": model, **sums, **({"token_logprobs": listed} if listed else {})})
        return
    lines = [f"{value:.4f}\t{i}\t{piece!r}" for i, piece, value in zip(ids, pieces, logprobs, strict=True)] if pieces else []
    lines += [
        f"tokens           {result.tokens}",
        f"bytes            {result.size}",
        f"log-probability  {result.log_probability:.4f}",
        f"perplexity       {result.perplexity:.4f}",
        f"bits per byte    {result.bits_per_byte:.4f}",
    ]
    write_text("\n".join(lines) + "\n")
