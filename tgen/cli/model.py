"""`--model` to a model, with what should be said about its folder on the way. Knows where names come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.ui import messages

if TYPE_CHECKING:
    from tgen.checkpoint.folder import Checkpoint
    from tgen.engine.generator import Generator
    from tgen.options import RunOptions


def chosen_folder(model: str | None) -> Path:
    """The folder for --model, $TGEN_MODEL, or the shipped default. Raises CheckpointError."""
    from tgen.checkpoint.resolve import resolve_model

    return resolve_model(model or os.environ.get("TGEN_MODEL") or None)


def chosen_checkpoint(model: str | None) -> Checkpoint:
    """The same, opened and checked; config keys that nobody understood are named. Raises CheckpointError."""
    folder = chosen_folder(model)

    from tgen.checkpoint.folder import open_checkpoint

    checkpoint = open_checkpoint(folder)
    if checkpoint.unread:
        messages.warning(f"config.json sets what tgen does not know: {', '.join(checkpoint.unread)}; the text may differ")
    return checkpoint


def open_generator(model: str | None, options: RunOptions) -> tuple[Generator, str]:
    """A Generator, and the name to show for it. Raises TgenError."""
    checkpoint = chosen_checkpoint(model)

    from tgen.engine.load import make_generator

    return make_generator(checkpoint, options), model or os.environ.get("TGEN_MODEL") or checkpoint.name
