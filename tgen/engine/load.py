"""From a folder or a name to a Generator: where checkpoint, tokenizer and runtime meet. Imports torch only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgen.checkpoint.folder import Checkpoint, end_tokens, open_checkpoint, start_token
from tgen.checkpoint.resolve import resolve_model
from tgen.engine.generator import Generator
from tgen.options import RunOptions
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None is the shipped default. Options are the fields of `RunOptions`: device, dtype, threads. Raises TgenError.
    """
    run = RunOptions(**options)
    checkpoint = open_checkpoint(resolve_model(None if model is None else str(model)))
    return make_generator(checkpoint, run)


def make_generator(checkpoint: Checkpoint, options: RunOptions) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer is checked before torch is imported."""
    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    ends = end_tokens(checkpoint)

    from tgen.runtime.open import open_model, sessions

    return Generator(
        sessions(open_model(checkpoint, options)),
        tokenizer,
        context=checkpoint.spec.context,
        end_tokens=ends,
        start_token=start_token(checkpoint),
        defaults=checkpoint.generation,
    )
