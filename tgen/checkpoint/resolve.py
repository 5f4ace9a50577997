"""Finds the model for the name that a user types: a path, a shipped model's name, or `org/name`, perhaps with `@revision`, in the cache.

It never touches the network.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tgen.checkpoint.hub.cache import can_be_opened, repositories, repository, split_revision
from tgen.errors import CheckpointError
from tgen.gguf_header import SUFFIX, first_files

MOST_NAMED = 5  # files in a message
DEFAULT_MODEL, DEFAULT_TRANSLATOR = "storyteller", "english-french"


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model folder on this machine, under the name that `--model` takes."""

    name: str
    folder: Path
    origin: Literal["shipped", "cache"]


def resolve(name: str) -> Path:
    """The folder or the GGUF file for a value of `--model`. Raises CheckpointError, whose hint lists the most similar names that exist."""
    if not name:
        raise CheckpointError("the model's name is empty", "give a folder or a name; `tgen models` lists the names")
    found = find(name)
    if found is None:
        nearest = _nearest(name, (model.name for model in found_models()))
        also = f"nearest: {', '.join(nearest)}; " if nearest else ""
        raise CheckpointError(
            f"no model {name!r}: neither a folder, a shipped name, nor in the Hugging Face cache",
            f"{also}`tgen models` lists them{pull_hint(name)}",
        )
    if found.is_file() and found.suffix != SUFFIX:
        raise CheckpointError(f"{name} is a file, not a model folder", "give the folder that holds config.json, or a GGUF file")
    return found


def find(name: str) -> Path | None:
    """The folder or file of a path, a shipped name or a name in the cache; None if there is none. Raises CheckpointError."""
    path = Path(os.path.expanduser(name))  # os.path.isdir returns False for an impossible path; Path.is_dir would raise an error
    if os.path.isdir(path):
        return _inside(path)
    if os.path.isfile(path):
        return path
    known = {model.name: model.folder for model in found_models()}
    if name in known:
        return _inside(known[name])
    base, revision = split_revision(name)
    if revision is not None and (snapshot := repository(base).snapshot(revision)) is not None:
        return _inside(snapshot)
    return None


def pull_hint(name: str) -> str:
    """The end of a hint: how to fetch a name that looks like one of the hub; empty for others."""
    return f"; `tgen pull {name}` fetches it from the hub" if name.count("/") == 1 and name[0] not in "./~" else ""


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names with the most similar spelling; case does not matter."""
    folded = {one: one.casefold() for one in known}
    close = difflib.get_close_matches(name.casefold(), dict.fromkeys(folded.values()), n=3)
    return sorted((one for one in folded if folded[one] in close), key=lambda one: close.index(folded[one]))[:3]


def found_models() -> Iterator[FoundModel]:
    """Shipped models first, then the Hugging Face cache, each in alphabetical order."""
    root = shipped_folder()
    if root is not None:
        for folder in sorted(root.iterdir()):
            if (folder / "config.json").is_file():
                yield FoundModel(folder.name, folder, "shipped")
    for one in repositories():
        snapshot = one.snapshot()
        if snapshot is not None and can_be_opened(snapshot):
            yield FoundModel(one.name, snapshot, "cache")


def shipped_folder() -> Path | None:
    """The folder of the shipped models, which is inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "models", package.parent / "models"):
        if candidate.is_dir():
            return candidate
    return None


def _inside(folder: Path) -> Path:
    """The folder, or its GGUF file if it has no config.json. Raises CheckpointError for several models as GGUF files."""
    if (folder / "config.json").exists():
        return folder
    files = first_files(folder)
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:MOST_NAMED]) + (" ..." if len(files) > MOST_NAMED else "")
        raise CheckpointError(f"{folder} holds several models as GGUF files: {names}", f"name one of them: -m {files[0]}")
    return files[0] if files else folder
