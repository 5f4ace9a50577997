"""From a folder or a name to a Generator: where checkpoint, tokenizer and runtime meet. Imports torch only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgen.checkpoint.container import Checkpoint, decoder_start, end_tokens, generation_settings, open_checkpoint, start_token
from tgen.checkpoint.resolve import DEFAULT_MODEL, resolve_model
from tgen.engine.generator import Generator
from tgen.errors import UsageError
from tgen.executors.session import Executor
from tgen.options import RunOptions
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None is the shipped default. Options are the fields of `RunOptions`: device, dtype, threads. Raises TgenError.
    """
    run = RunOptions(**options)
    checkpoint = open_checkpoint(resolve_model(DEFAULT_MODEL if model is None else str(model)))
    return open_generator(checkpoint, run)


def open_generator(checkpoint: Checkpoint, options: RunOptions) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer is checked before torch is imported.

    Raises UsageError for an encoder that stands alone: it writes nothing.
    """
    if checkpoint.spec.kind == "encoder-only":
        raise UsageError(f"{checkpoint.name} is encoder-only, so it writes no text", "for it there are tgen fill and tgen embed")
    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    end_tokens(checkpoint)  # a bad one is an error before anything heavy is done

    from tgen.executors.open import open_executor

    return make_generator(checkpoint, open_executor(checkpoint, options), tokenizer)


def make_generator(checkpoint: Checkpoint, executor: Executor, tokenizer: Tokenizer) -> Generator:
    """The same for a model that is loaded already."""
    return Generator(
        executor,
        tokenizer,
        context=checkpoint.spec.context,
        vocab=checkpoint.spec.vocab,
        end_tokens=end_tokens(checkpoint),
        start_token=start_token(checkpoint),
        answer_start=decoder_start(checkpoint) if checkpoint.spec.kind == "encoder-decoder" else None,
        defaults=generation_settings(checkpoint),
    )
