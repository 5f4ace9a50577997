"""From a folder or a name to a Generator: where checkpoint, tokenizer and runtime meet. Imports torch only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.generation import read_generation
from tgen.checkpoint.resolve import DEFAULT_MODEL, resolve
from tgen.engine.generator import Generator
from tgen.engine.translator import Translator
from tgen.errors import UsageError
from tgen.executors.session import OpenSession
from tgen.options import GenerationOptions, RunOptions
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None is the shipped default. Options are the fields of `RunOptions`: device, dtype, threads. Raises TgenError.
    """
    run = RunOptions(**options)
    return open_generator(open_checkpoint(resolve(DEFAULT_MODEL if model is None else str(model))), run)


def make_translator(checkpoint: Checkpoint, open_session: OpenSession, tokenizer: Tokenizer, options: GenerationOptions) -> Translator:
    """The Translator for an opened encoder-decoder. Raises CheckpointError for settings of its folder that cannot be used."""
    generation = read_generation(checkpoint)
    assert generation.decoder_start is not None
    return Translator(
        open_session,
        tokenizer,
        context=checkpoint.spec.context,
        start_token=generation.decoder_start,
        end_tokens=generation.end_tokens,
        generation=generation,
        options=options,
    )


def open_generator(checkpoint: Checkpoint, options: RunOptions) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer and settings are checked before torch is imported.

    Raises UsageError for an encoder that stands alone: it writes nothing.
    """
    kind = checkpoint.spec.kind
    if kind == "encoder-only":
        raise UsageError(f"{checkpoint.name} is encoder-only, so it writes no text", "for it there are tgen fill and tgen embed")
    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    generation = read_generation(checkpoint)

    from tgen.executors.open import open_model, sessions

    return Generator(
        sessions(open_model(checkpoint, options)),
        tokenizer,
        context=checkpoint.spec.context,
        vocab=checkpoint.spec.vocab,
        end_tokens=generation.end_tokens,
        start_token=generation.start_token,
        answer_start=generation.decoder_start if kind == "encoder-decoder" else None,
        defaults=generation,
    )
