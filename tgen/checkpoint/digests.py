"""Digests of the contents of weight files, remembered for as long as a file is the same."""

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

BLOCK = 2**24  # bytes that one thread hashes at a time
MOST_REMEMBERED = 500
SETTLED = 2.0  # seconds; a file written within the resolution of its times could change again without a trace


class Digests:
    """The digests that a folder remembers. A file that was written, moved or copied since is hashed anew.

    Every write sets a file's ctime and, unlike its mtime, no program can set it back.
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
        """The digest if it is known without reading the file."""
        entry = self._known().get(os.path.realpath(file))
        return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] == _identity(file) else None

    def _hash(self, file: Path) -> str:
        """A hash of the hashes of all blocks, which several threads compute."""
        size = file.stat().st_size
        with open(file, "rb") as opened, ThreadPoolExecutor(self._threads) as pool:
            number = opened.fileno()
            blocks = pool.map(lambda at: hashlib.blake2b(os.pread(number, BLOCK, at)).digest(), range(0, size, BLOCK))
            return hashlib.blake2b(b"".join(blocks), digest_size=32).hexdigest()

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, place: str, entry: list[Any]) -> None:
        """Keep the newest entries. Two processes that write at once lose an entry, which costs only a hash."""
        known = {**{other: value for other, value in self._known().items() if other != place}, place: entry}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self._path, json.dumps(dict(list(known.items())[-MOST_REMEMBERED:])), shared=True)


def _identity(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
