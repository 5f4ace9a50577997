"""Foretells the memory of a run: it measures this process, and the library counts the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tgen.errors import TgenError, UsageError
from tgen.options import RunOptions

if TYPE_CHECKING:
    from tgen.arrays import Logits
    from tgen.checkpoint.container import Checkpoint
    from tgen.text.tokenizer import Tokenizer

TOKENS = 4
SPREAD = 5.0  # the deviation of logits, so that some tokens are much more likely than others, as in a model


def run_length(checkpoint: Checkpoint, context: int | None, new_tokens: int | None) -> dict[str, int]:
    """The tokens of a prompt and those after it, and the rows that these have: as asked, else as many as a run takes at most by default.

    Raises UsageError if they do not fit the context.
    """
    from tgen.checkpoint.generation import read_generation
    from tgen.options import resolve

    limit, spec = checkpoint.spec.context, checkpoint.spec
    if spec.decoder is None or spec.head is None:
        if new_tokens is not None:
            raise UsageError(f"--max-new-tokens is for a model that writes text; {checkpoint.name} is {spec.kind}", "leave it out")
        asked, new, rows = context or limit, 0, 0
    else:
        options = resolve({}, {}, read_generation(checkpoint).options).options
        new = new_tokens or max(1, min(options.max_new_tokens, limit - (context or 1)))
        rows = max(options.num_beams, options.samples)
        asked = context or (limit if spec.encoder else max(1, limit - new))
    too_long = max(asked, new + 1) > limit or (spec.encoder is None and asked + new > limit)
    if too_long and (context or new_tokens):
        message = f"--context {asked} and {new} new token{'s' * (new != 1)} do not fit the model's context of {limit}"
        raise UsageError(message, "give a smaller --context or --max-new-tokens")
    return {"prompt_tokens": asked, "new_tokens": new, "rows": rows}


def memory_to_run(checkpoint: Checkpoint, run: RunOptions, length: dict[str, int], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What a run of this length takes on the native executor, part by part and together."""
    import tgen.cli.generate
    import tgen.text.reasoning  # noqa: F401 - the process of a run holds these modules, too
    from tgen.engine.job import CHUNK
    from tgen.executors.formats import resident_memory
    from tgen.executors.native.forecast import run_memory

    if tokenizer is not None and checkpoint.spec.kind != "encoder-only" and checkpoint.spec.head is not None:
        _rehearse(checkpoint, tokenizer)
    process = resident_memory()
    found = run_memory(checkpoint, run, length["prompt_tokens"], length["new_tokens"], length["rows"], CHUNK)
    return {
        "memory_of_process": process,
        "memory_of_cache": found.cache,
        "memory_of_buffers": found.buffers,
        "memory_to_run": process + found.weights + found.cache + found.buffers,
        "memory_to_run_for": length,
    }


def _rehearse(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Go through the steps of a generation with the model's own settings. A prompt that the settings refuse makes no difference."""
    from tgen.engine.opening import make_generator

    generator = make_generator(checkpoint, _Stage(checkpoint.spec.vocab), tokenizer)
    with contextlib.suppress(TgenError):
        for _ in generator.run([0], generator.resolve({"max_new_tokens": TOKENS, "ignore_eos": True})):
            pass


class _Stage:
    """An executor and its session in one: it remembers nothing, and its logits are random."""

    exact = True

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._random = np.random.default_rng(0)

    def open(self) -> _Stage:
        return self

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:  # noqa: ARG002
        return 0

    def free_bytes(self) -> int | None:
        return None

    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        pass

    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
        count = len(rows) if tails is None else sum(tails)
        logits = self._random.standard_normal((count, self._vocab), np.float32)
        logits *= np.float32(SPREAD)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        pass

    def truncate(self, lengths: Sequence[int]) -> None:
        pass

    def reachable(self, row: int, length: int) -> int:  # noqa: ARG002
        return length

    def mark(self, row: int) -> None:
        pass

    def split(self, row: int) -> _Stage:  # noqa: ARG002
        return self

    def join(self, other: _Stage) -> None:
        pass
