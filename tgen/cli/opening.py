"""From `--model` to a model, with warnings about its folder on the way: `resolve`, `open_checkpoint`, `open_generator`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.cli.settings import named_model, unalias
from tgen.errors import UsageError
from tgen.ui import messages

COMMANDS_OF = {
    "decoder-only": ("generate", "score", "explain", "embed", "attention", "bench"),
    "encoder-decoder": ("translate", "generate", "attention"),
    "encoder-only": ("fill", "embed", "attention"),
}

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.engine.generator import Generator
    from tgen.options import GuessOptions, RunOptions
    from tgen.text.chat import ChatTemplate


def resolve(model: str | None, *, translator: bool = False) -> Path:
    """The folder for --model, $TGEN_MODEL, the setting, or the shipped default for the task. Raises CheckpointError, UsageError."""
    from tgen.checkpoint import resolve as names

    return names.resolve(unalias(named_model(model) or (names.DEFAULT_TRANSLATOR if translator else names.DEFAULT_MODEL)))


def open_checkpoint(model: str | None, *, translator: bool = False, vectors: bool = False, adapters: Sequence[str] = ()) -> Checkpoint:
    """Open and check the folder that `resolve` finds, with these `adapters`; with `vectors`, it may lack the head.

    A warning names settings in its files that tgen does not implement.

    Raises CheckpointError.
    """
    folder = resolve(model, translator=translator)

    from tgen.checkpoint import container
    from tgen.checkpoint.generation import not_honoured

    checkpoint = container.open_checkpoint(folder, vectors=vectors, adapters=adapters)
    if ignored := not_honoured(checkpoint):
        messages.warn_of_ignored(ignored)
    return checkpoint


def require_kind(checkpoint: Checkpoint, command: str, *kinds: str) -> None:
    """Raise UsageError unless the command is for this kind of model; the hint names the commands that are."""
    if checkpoint.spec.kind not in kinds:
        others = ", ".join(f"tgen {name}" for name in COMMANDS_OF[checkpoint.spec.kind])
        raise UsageError(
            f"tgen {command} needs a model that is {' or '.join(kinds)}; {checkpoint.name} is {checkpoint.spec.kind}",
            f"commands for {checkpoint.spec.kind} models: {others}",
        )


def chat_template(checkpoint: Checkpoint, words: Sequence[str] | None = None) -> ChatTemplate:
    """The folder's chat template with the `words` of --template-arg. Raises UsageError for a model that has none, CheckpointError."""
    from tgen.text.chat import find_template, no_template, read_arguments

    template = find_template(checkpoint.texts)
    if template is None:
        raise no_template(checkpoint.name)
    return template.with_arguments(read_arguments(words or []))


def open_generator(
    model: str | None, options: RunOptions, checkpoint: Checkpoint | None = None, guessing: GuessOptions | None = None
) -> tuple[Generator, str]:
    """A Generator, and the name to show for it; `checkpoint` if it is open already. Raises TgenError."""
    checkpoint = checkpoint or open_checkpoint(model, adapters=options.adapter)

    from tgen.engine import opening

    return opening.open_generator(checkpoint, options, guessing), named_model(model) or checkpoint.name
