"""Opens a model folder or name as a Generator, from checkpoint, tokenizer and executor. It imports torch only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.generation import read_generation
from tgen.checkpoint.resolve import DEFAULT_MODEL, resolve
from tgen.engine.generator import Generator
from tgen.errors import UsageError
from tgen.executors.session import Executor
from tgen.options import RunOptions
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None loads the shipped default. Options are the fields of `RunOptions`: device, dtype, threads, executor. Raises TgenError.
    """
    run = RunOptions(**options)
    return open_generator(open_checkpoint(resolve(DEFAULT_MODEL if model is None else str(model))), run)


def open_generator(checkpoint: Checkpoint, options: RunOptions) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer and settings are checked before torch is imported.

    Raises UsageError for an encoder-only model, which generates no text.
    """
    if checkpoint.spec.kind == "encoder-only":
        raise UsageError(f"{checkpoint.name} is encoder-only, so it generates no text", "use it with tgen fill or tgen embed")
    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    read_generation(checkpoint)

    from tgen.executors.open import open_executor

    return make_generator(checkpoint, open_executor(checkpoint, options), tokenizer)


def make_generator(checkpoint: Checkpoint, executor: Executor, tokenizer: Tokenizer) -> Generator:
    """The Generator for a model that is already loaded."""
    generation = read_generation(checkpoint)
    return Generator(
        executor,
        tokenizer,
        context=checkpoint.spec.context,
        vocab=checkpoint.spec.vocab,
        end_tokens=generation.end_tokens,
        start_token=generation.start_token,
        answer_start=generation.decoder_start if checkpoint.spec.kind == "encoder-decoder" else None,
        defaults=generation,
    )
