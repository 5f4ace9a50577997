"""Opens a model folder or name as a Generator, from checkpoint, tokenizer and executor. It imports torch only when called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.generation import read_generation
from tgen.checkpoint.resolve import DEFAULT_MODEL, resolve
from tgen.engine.draft import Draft
from tgen.engine.generator import Generator
from tgen.errors import UsageError
from tgen.executors.session import Executor
from tgen.options import GuessOptions, RunOptions
from tgen.spec.shapes import parameter_count
from tgen.text.tokenizer import Tokenizer


def load(model: str | Path | None = None, *, adapters: Sequence[str | Path] = (), **options: Any) -> Generator:
    """A model that continues prompts, from a Hugging Face folder, a shipped name, or `org/name` in the Hugging Face cache.

    None loads the shipped default; `adapters` are folders of LoRA adapters, or texts FOLDER=SCALE. Options are the fields of `RunOptions`
    (device, dtype, threads, executor) and `GuessOptions` (guess, draft_model). Raises TgenError.
    """
    guessing = GuessOptions(**{option.name: options.pop(option.name) for option in fields(GuessOptions) if option.name in options})
    run = RunOptions(adapter=tuple(map(str, adapters)), **options)
    checkpoint = open_checkpoint(resolve(DEFAULT_MODEL if model is None else str(model)), adapters=run.adapter)
    return open_generator(checkpoint, run, guessing)


def open_generator(checkpoint: Checkpoint, options: RunOptions, guessing: GuessOptions | None = None) -> Generator:
    """The Generator for an opened checkpoint; its tokenizer and settings are checked before torch is imported.

    Raises UsageError for an encoder-only model, which generates no text, and for a draft model that does not suit the checkpoint.
    """
    guessing = guessing or GuessOptions()
    if checkpoint.spec.kind == "encoder-only":
        raise no_text(checkpoint.name)
    tokenizer = Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab)
    read_generation(checkpoint)
    small = None if guessing.draft_model is None else _draft_checkpoint(guessing.draft_model, checkpoint, tokenizer)

    from tgen.executors.open import open_executor

    executor, draft = open_executor(checkpoint, options), None
    if small is not None:
        price = parameter_count(small.spec) / parameter_count(checkpoint.spec)
        draft = Draft(open_executor(small, options), small.spec.context, checkpoint.spec.vocab, price)
    return make_generator(checkpoint, executor, tokenizer, guess=guessing.guess, draft=draft)


def no_text(name: str) -> UsageError:
    """The error of a command that generates, for an encoder-only model."""
    return UsageError(f"{name} is encoder-only, so it generates no text", "use it with tgen fill or tgen embed")


def _draft_checkpoint(name: str, checkpoint: Checkpoint, tokenizer: Tokenizer) -> Checkpoint:
    """The draft model's checkpoint. Raises UsageError unless both models continue prompts and give their tokens the same ids."""
    small = open_checkpoint(resolve(name))
    for one in (checkpoint, small):
        if one.spec.kind != "decoder-only":
            message = f"--draft-model needs two models that are decoder-only; {one.name} is {one.spec.kind}"
            raise UsageError(message, "leave --draft-model out" if one is checkpoint else "name a small model with the same tokenizer")
    other = Tokenizer.load(small.texts, small.spec.vocab)
    size = tokenizer.size()
    differing = next((token for token in range(size) if tokenizer.piece(token) != other.piece(token)), None) if other.size() == size else 0
    if differing is not None:
        reason = f"token {differing} differs" if other.size() == size else f"one has {size:,} tokens, the other {other.size():,}"
        raise UsageError(
            f"--draft-model {name} has another tokenizer than {checkpoint.name}: {reason}",
            "a draft model must give each token the same id: name a smaller model of the same family",
        )
    return small


def make_generator(
    checkpoint: Checkpoint, executor: Executor, tokenizer: Tokenizer, *, guess: bool | None = None, draft: Draft | None = None
) -> Generator:
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
        guess=guess,
        draft=draft,
    )
