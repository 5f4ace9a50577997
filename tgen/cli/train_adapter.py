"""The part of `tgen train` that is about adapters (--adapter)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.cli.settings import unalias
from tgen.errors import UsageError
from tgen.train.adapters.settings import RANK, AdapterSettings
from tgen.train.settings import TrainSettings

if TYPE_CHECKING:
    from tgen.train.adapters.workspace import AdapterWorkspace


def check_adapter(wanted: bool, base: str | None, texts: list[str] | None, own: dict[str, Any], others: dict[str, Any]) -> None:
    """Raise UsageError for --adapter without base or texts, for its `own` options without it, and for the `others`, which it excludes."""
    if not wanted:
        for name, value in own.items():
            if value is not None:
                raise UsageError(f"{name} is for a run with --adapter", f"leave {name} out")
        return
    if base is None or not texts:
        raise UsageError("--adapter needs text files, and --base with the model to adapt", "tgen train --base FOLDER --adapter FILE...")
    for name, value in others.items():
        if value:
            raise UsageError(f"--adapter and {name} exclude each other", "an adapter leaves its base as it is")


def begin_adapter(
    workspace: AdapterWorkspace,
    texts: list[str],
    held_back: list[str] | None,
    base: str,
    rank: int | None,
    alpha: float | None,
    settings: TrainSettings,
) -> None:
    """Start the run of an adapter on texts."""
    from tgen.train.adapters.base import Base

    name = unalias(base)
    place = os.path.expanduser(name)
    rank = RANK if rank is None else rank
    # A folder is remembered by its whole path, because the adapter may be used from anywhere.
    adapter = AdapterSettings(str(Path(place).resolve()) if os.path.isdir(place) else name, rank, 2 * rank if alpha is None else alpha)
    found = Base(adapter.base)
    workspace.begin(texts, found.settings(settings), held_back, found, adapter)
