"""The Hugging Face cache, in which tgen and Hugging Face's own tools keep the files that they fetch. It never touches the network.

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
UNFINISHED = ".incomplete"  # the ending of a blob's name until all of it has come and its digest is right
MARKS = ("config.json", "adapter_config.json")  # a snapshot with one of these files can be opened; a pull writes them last


@dataclass(frozen=True, slots=True)
class Repository:
    """What the cache holds of a repository, whose name is `org/name` or a name alone."""

    name: str
    folder: Path

    @property
    def locks(self) -> Path:
        """The folder of the locks with which processes that fetch the same file wait for each other."""
        return self.folder.parent / ".locks" / self.folder.name

    def snapshot(self, revision: str | None = None) -> Path | None:
        """The snapshot of a revision. Without a revision, it is that of `main`, else the newest snapshot that can be opened."""
        snapshots = self.folder / "snapshots"
        ref = self.folder / "refs" / (revision or "main")
        if ref.is_file():
            named = snapshots / ref.read_text("utf-8", errors="replace").strip()
            if named.is_dir():
                return named
        if revision is not None:
            return snapshots / revision if can_be_opened(snapshots / revision) else None
        found = [folder for folder in snapshots.glob("*") if can_be_opened(folder)]
        return max(found, key=lambda folder: folder.stat().st_mtime, default=None)

    def name_commit(self, revision: str, commit: str) -> None:
        """Make a revision, such as `main`, point to a commit. Raises OSError."""
        if revision != commit:
            ref = self.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, commit, shared=True)

    def remove(self) -> int:
        """Remove everything that the cache holds of the repository, and return how many bytes that frees. Raises OSError."""
        size = sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())
        shutil.rmtree(self.folder)
        shutil.rmtree(self.locks, ignore_errors=True)
        return size


def can_be_opened(snapshot: Path) -> bool:
    """Whether a folder holds the config of a model or an adapter, or a GGUF file."""
    return any((snapshot / mark).is_file() for mark in MARKS) or bool(first_files(snapshot))


def cache_folder() -> Path:
    """The folder of the Hugging Face cache, which the environment chooses as for Hugging Face's own tools."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expanduser(explicit))
    home = os.environ.get("HF_HOME")
    base = home or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.path.expanduser(base)) / "hub"


def repository(name: str) -> Repository:
    """The repository of this name, whether the cache holds it or not."""
    return Repository(name, cache_folder() / (PREFIX + name.replace("/", "--")))


def repositories() -> Iterator[Repository]:
    """The repositories in the cache, in alphabetical order."""
    cache = cache_folder()
    if os.path.isdir(cache):
        for folder in sorted(cache.glob(f"{PREFIX}*")):
            yield Repository(folder.name.removeprefix(PREFIX).replace("--", "/"), folder)


def split_revision(name: str) -> tuple[str, str | None]:
    """The name and the revision in `org/name@revision`; the revision may be missing."""
    repository_name, _, revision = name.partition("@")
    return repository_name, revision or None
