"""The Hugging Face cache: where its own tools keep what they fetched, and tgen too. It never touches the network.

A repository is a folder `models--ORG--NAME`: `blobs/` has the files under their digests, `snapshots/COMMIT/` links to them under their
names, and `refs/main` names the commit that is used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tgen.files import write_text
from tgen.gguf_header import first_files

PREFIX = "models--"
UNFINISHED = ".incomplete"  # the end of a blob's name until it is whole and right
MARKS = ("config.json", "adapter_config.json")  # a snapshot with one of them can be opened; a pull writes it last


@dataclass(frozen=True, slots=True)
class Repository:
    """What the cache holds of `name`, which is `org/name`, or a name alone."""

    name: str
    folder: Path

    @property
    def locks(self) -> Path:
        """Where processes that fetch the same file wait for each other."""
        return self.folder.parent / ".locks" / self.folder.name

    def snapshot(self, revision: str | None = None) -> Path | None:
        """The snapshot of a revision; without one, that of `main`, else the newest one that can be opened."""
        snapshots = self.folder / "snapshots"
        ref = self.folder / "refs" / (revision or "main")
        if ref.is_file():
            named = snapshots / ref.read_text("utf-8", errors="replace").strip()
            if named.is_dir():
                return named
        if revision is not None:
            return snapshots / revision if is_opened(snapshots / revision) else None
        found = [folder for folder in snapshots.glob("*") if is_opened(folder)]
        return max(found, key=lambda folder: folder.stat().st_mtime, default=None)

    def name_commit(self, revision: str, commit: str) -> None:
        """Let a revision lead to a commit from now on. Raises OSError."""
        if revision != commit:
            ref = self.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, commit, shared=True)

    def remove(self) -> int:
        """Remove all that the cache holds of the repository; returns the bytes that are free then. Raises OSError."""
        size = sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())
        shutil.rmtree(self.folder)
        shutil.rmtree(self.locks, ignore_errors=True)
        return size


def is_opened(snapshot: Path) -> bool:
    """Whether a folder has what every model or adapter has, or a GGUF file."""
    return any((snapshot / mark).is_file() for mark in MARKS) or bool(first_files(snapshot))


def cache_folder() -> Path:
    """The Hugging Face cache, where its own tools look for it."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expanduser(explicit))
    home = os.environ.get("HF_HOME")
    base = home or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.path.expanduser(base)) / "hub"


def repository(name: str) -> Repository:
    """The repository of this name, whether the cache holds it or not."""
    return Repository(name, cache_folder() / (PREFIX + name.replace("/", "--")))


def repositories() -> Iterator[Repository]:
    """Those in the cache, in alphabetical order."""
    cache = cache_folder()
    if os.path.isdir(cache):
        for folder in sorted(cache.glob(f"{PREFIX}*")):
            yield Repository(folder.name.removeprefix(PREFIX).replace("--", "/"), folder)


def split_revision(name: str) -> tuple[str, str | None]:
    """`org/name@revision` as a name and a revision, which may be missing."""
    repository_name, _, revision = name.partition("@")
    return repository_name, revision or None
