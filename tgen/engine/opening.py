"""From a folder or a name to a Generator: where checkpoint, tokenizer and runtime meet. Imports torch only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgen.checkpoint.container import Checkpoint, decoder_start, end_tokens, generation_settings, open_checkpoint, start_token
from tgen.checkpoint.resolve import DEFAULT_MODEL, resolve_model
from tgen.engine.generator import Generator
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None is the shipped default. Options are the fields of `RunOptions`: device, dtype, threads. Raises TgenError.
    """
    run = RunOptions(**options)
    checkpoint = open_checkpoint(resolve_model(DEFAULT_MODEL if model is None else str(model)))
    return make_generator(checkpoint, run)


def make_generator(checkpoint: Checkpoint, options: RunOptions) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer is checked before torch is imported.

    Raises UsageError for an encoder that stands alone: it writes nothing.
    """
    kind = checkpoint.spec.kind
    if kind == "encoder-only":
        raise UsageError(f"{checkpoint.name} is encoder-only, so it writes no text", "for it there are tgen fill and tgen embed")
    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    ends = end_tokens(checkpoint)
    answer_start = decoder_start(checkpoint) if kind == "encoder-decoder" else None

    from tgen.executors.open import open_executor

    return Generator(
        open_executor(checkpoint, options),
        tokenizer,
        context=checkpoint.spec.context,
        vocab=checkpoint.spec.vocab,
        end_tokens=ends,
        start_token=start_token(checkpoint),
        answer_start=answer_start,
        defaults=generation_settings(checkpoint),
    )
