"""`--model` to a model, with what should be said about its folder on the way. Knows where names come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.errors import UsageError
from tgen.ui import messages

COMMANDS_OF = {
    "decoder-only": ("generate", "score", "explain", "attention", "bench"),
    "encoder-decoder": ("translate", "generate", "attention"),
    "encoder-only": ("fill", "embed", "attention"),
}

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.engine.generator import Generator
    from tgen.options import RunOptions
    from tgen.text.chat import ChatTemplate


def chosen_folder(model: str | None, *, translator: bool = False) -> Path:
    """The folder for --model, $TGEN_MODEL, or the shipped default for the task. Raises CheckpointError."""
    from tgen.checkpoint.resolve import DEFAULT_MODEL, DEFAULT_TRANSLATOR, resolve_model

    return resolve_model(model or os.environ.get("TGEN_MODEL") or (DEFAULT_TRANSLATOR if translator else DEFAULT_MODEL))


def chosen_checkpoint(model: str | None, *, translator: bool = False) -> Checkpoint:
    """The same, opened and checked. Raises CheckpointError."""
    folder = chosen_folder(model, translator=translator)

    from tgen.checkpoint.container import not_honoured, open_checkpoint

    checkpoint = open_checkpoint(folder)
    if ignored := not_honoured(checkpoint):
        messages.warning(f"generation_config.json sets what tgen does not do: {', '.join(ignored)}; the text may differ")
    return checkpoint


def require_kind(checkpoint: Checkpoint, command: str, *kinds: str) -> None:
    """Raise UsageError unless the model is of a kind that a command is for, naming commands that are."""
    if checkpoint.spec.kind not in kinds:
        others = ", ".join(f"tgen {name}" for name in COMMANDS_OF[checkpoint.spec.kind])
        raise UsageError(
            f"tgen {command} needs a model that is {' or '.join(kinds)}; {checkpoint.name} is {checkpoint.spec.kind}",
            f"for it there is {others}",
        )


def chat_template(checkpoint: Checkpoint) -> ChatTemplate:
    """The folder's chat template. Raises UsageError for a model that has none, CheckpointError for one that cannot be read."""
    from tgen.text.chat import find_template

    template = find_template(checkpoint.folder)
    if template is None:
        message = f"{checkpoint.name} has no chat template: it continues texts and was not made for conversation"
        raise UsageError(message, "use `tgen generate` without --chat, or give a chat model with --model")
    return template


def open_generator(model: str | None, options: RunOptions, checkpoint: Checkpoint | None = None) -> tuple[Generator, str]:
    """A Generator, and the name to show for it; `checkpoint` if it is open already. Raises TgenError."""
    checkpoint = checkpoint or chosen_checkpoint(model)

    from tgen.engine.opening import make_generator

    return make_generator(checkpoint, options), model or os.environ.get("TGEN_MODEL") or checkpoint.name
