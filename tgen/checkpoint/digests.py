"""Digests of weight files, which are remembered for as long as a file is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tgen.files import write_text

BLOCK = 2**24  # bytes whose hash is a part of the digest
PIECE = 2**20  # bytes of it that a thread reads at a time
MOST_REMEMBERED = 500
SETTLED = 2.0  # seconds; a younger file could change once more within the resolution of its times, so its digest is not remembered


class Digests:
    """The digests in a folder's digests.json. A file that was written, moved or copied after its digest was computed is hashed again.

    Every write changes a file's ctime, and unlike the mtime, no program can set the ctime back.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._path = folder / "digests.json"
        self._threads = threads

    def of(self, file: Path) -> str:
        """The digest of a file's content. Raises OSError if the file cannot be read."""
        identity = _identity(file)
        digest = self.remembered(file)
        if digest is None:
            digest = self._hash(file)
            if _identity(file) == identity and time.time() - identity[2] / 1e9 > SETTLED:
                self._remember(os.path.realpath(file), [identity, digest])
        return digest

    def remembered(self, file: Path) -> str | None:
        """The remembered digest; None if the file has changed or was never hashed."""
        entry = self._known().get(os.path.realpath(file))
        return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] == _identity(file) else None

    def _hash(self, file: Path) -> str:
        """A hash of the hashes of all blocks; several threads hash the blocks."""
        size = file.stat().st_size
        with open(file, "rb") as opened, ThreadPoolExecutor(self._threads) as pool:
            number = opened.fileno()
            blocks = pool.map(lambda at: _hash_of(number, at), range(0, size, BLOCK))
            return hashlib.blake2b(b"".join(blocks), digest_size=32).hexdigest()

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, place: str, entry: list[Any]) -> None:
        """Add an entry and keep the newest ones. If two processes write at once, one entry is lost, and that file is hashed again."""
        known = {**{other: value for other, value in self._known().items() if other != place}, place: entry}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self._path, json.dumps(dict(list(known.items())[-MOST_REMEMBERED:])), shared=True)


def _hash_of(file: int, start: int) -> bytes:
    """The hash of the block that starts at a place in an open file."""
    found = hashlib.blake2b()
    for at in range(start, start + BLOCK, PIECE):
        found.update(os.pread(file, PIECE, at))
    return found.digest()


def _identity(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
