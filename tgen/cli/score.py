"""`tgen score`: measures how well a model predicts a text."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Annotated

from tgen.cli import options as p
from tgen.cli.opening import open_checkpoint, require_kind
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint


@p.takes()
def score(
    text: TextArgument = None,
    file: p.File = None,
    tokens: Annotated[
        bool,
        p.option("--tokens", panel=p.OUTPUT, help="Before the sums, a line for each token: log-probability, id, token, tabs between."),
    ] = False,
    json: p.Json = False,
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:
    """Show how well a decoder-only model predicts a text: log-probability, perplexity, bits per byte.

    A token has the log-probability (a natural logarithm) that it has in `tgen generate --json` after the same text. Nothing predicts
    the first token, so it is not scored and its bytes do not count, unless the tokenizer puts a start token in front. A text longer
    than the context is read in windows that overlap by half.
    """
    messages.configure("auto", quiet=False)
    source = PromptSource(text, file)
    checkpoint = open_checkpoint(model)
    require_kind(checkpoint, "score", "decoder-only")

    from tgen.tasks.scoring import scored_bytes
    from tgen.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    content = source.read()
    ids = tokenizer.encode(content)
    if len(ids) < 2:
        raise UsageError("the text is too short to score", "give at least two tokens: the first one is not scored")
    logprobs = _read(checkpoint, ids, run)
    pieces = [tokenizer.decode([token], special=True) for token in ids[1:]] if tokens else []
    _show(checkpoint.name, ids[1:], pieces, logprobs, scored_bytes(tokenizer, content, ids), json)
    return 0


def _read(checkpoint: Checkpoint, ids: list[int], options: RunOptions) -> list[float]:
    """The log-probability of every id but the first."""
    from tgen.executors.open import open_executor
    from tgen.tasks.scoring import log_probabilities, windowed
    from tgen.ui.counting import counting

    read = functools.partial(log_probabilities, open_executor(checkpoint, options))
    logprobs: list[float] = []
    with counting("scored", len(ids) - 1) as bar:
        for part in windowed(ids, checkpoint.spec.context, read):
            logprobs += part.tolist()
            bar.add(len(part))
    return logprobs


def _show(model: str, ids: list[int], pieces: list[str], logprobs: list[float], size: int, json: bool) -> None:
    """The sums, after the tokens if `pieces` has any."""
    from tgen.tasks.scoring import Score

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
