"""Files that are whole or absent: written beside their place, flushed to disk, then renamed. Knows nothing of what they hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None], *, shared: bool = False) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in place of `path` in one step.

    `shared` is for a file that several processes may write at once: each has a temporary file of its own, and the last one wins.
    """
    temporary = path.with_name(f".{path.name}.{f'{os.getpid()}.' if shared else ''}partial")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; some writers make files that only their owner may read
        write(temporary)
        temporary.chmod(mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def try_writing(path: Path) -> None:
    """Raise the OSError, if any, that writing this file would end in."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.touch()
    temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """A UTF-8 text file, whole or absent."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
