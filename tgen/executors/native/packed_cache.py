"""Packed weights in the user's cache folder: one file for each model and quantisation, which later runs map into memory.

A file's name is a digest of all that its content follows from: the content of the weights, what the model takes from them, the
quantisation, and the version of this format. The file holds MARK, a checksum of the rest, the length of a header, the header in JSON and,
aligned, the matrices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array
from tgen.errors import UsageError
from tgen.executors.native.digests import Digests
from tgen.executors.native.weights import StoredMatrix
from tgen.files import TEMPORARY, write_atomically

FORMAT = "packed weights 1"  # changes with the layout of panels and with what packing computes
MARK = b"tgenpack"
ALIGNMENT = 64
SUFFIX = ".packed"
LIMIT_VARIABLE, DEFAULT_LIMIT = "TGEN_CACHE_GB", 20.0
ABANDONED = 86400  # seconds after which an unfinished file belongs to no running process

Checksum = Callable[[Array], int]


class PackedCache:
    """The cached file of a checkpoint under a quantisation. Nothing here raises an error because of the folder or the file."""

    def __init__(self, folder: Path, checkpoint: Checkpoint, quantize: str, checksum: Checksum, threads: int) -> None:
        """`checksum` computes 64 bits from bytes. Raises OSError if the weights cannot be read."""
        files = sorted({tensor.file for match in checkpoint.matches.parameters.values() for tensor in match.tensor.parts})
        digests = Digests(folder, threads)
        takes = [(name, match.take) for name, match in sorted(checkpoint.matches.parameters.items())]
        parts = [FORMAT, quantize, checkpoint.config, checkpoint.spec, takes, [(file.name, digests.of(file)) for file in files]]
        name = hashlib.blake2b("\n".join(map(repr, parts)).encode(), digest_size=16).hexdigest()
        self.path = folder / f"{name}{SUFFIX}"
        self._checksum = checksum

    def read(self) -> dict[str, StoredMatrix] | None:
        """The matrices by name, mapped into memory; None if there is no such file, or if it is damaged."""
        try:
            with open(self.path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_WILLNEED"):
                mapped.madvise(mmap.MADV_WILLNEED)
            matrices = self._parsed(np.frombuffer(mapped, np.uint8))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path)  # the files used longest ago are removed first
        return matrices

    def write(self, matrices: Mapping[str, StoredMatrix]) -> str | None:
        """Keep the matrices for later runs; returns the reason if that is not possible."""
        size = sum(matrix.data.nbytes for matrix in matrices.values())
        if size > (limit := limit_bytes()):
            return f"they take {size / 1e9:.1f} GB, and {LIMIT_VARIABLE} allows {limit / 1e9:g}" if limit else None
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self.path, lambda path: self._fill(path, matrices), shared=True)
            _remove_oldest(self.path, limit)
        except OSError as error:
            return f"{error.filename or self.path}: {error.strerror or error}"
        return None

    def _parsed(self, data: Array) -> dict[str, StoredMatrix]:
        """The matrices of a file's bytes. Raises ValueError, KeyError or TypeError for a damaged file."""
        start = data[:24].tobytes()
        if start[:8] != MARK or int.from_bytes(start[8:16], "little") != self._checksum(data[16:]):
            raise ValueError("damaged")
        end = 24 + int.from_bytes(start[16:24], "little")
        header: dict[str, Any] = json.loads(data[24:end].tobytes())
        return {
            name: StoredMatrix(number_format, rows, columns, data[at : at + size])
            for name, (number_format, rows, columns, at, size) in header.items()
        }

    def _fill(self, path: Path, matrices: Mapping[str, StoredMatrix]) -> None:
        room = _aligned(24 + 256 * (len(matrices) + 1))  # more than the header takes
        entries, at = {}, room
        for name, matrix in matrices.items():
            entries[name] = (matrix.format, matrix.rows, matrix.columns, at, matrix.data.nbytes)
            at = _aligned(at + matrix.data.nbytes)
        header = json.dumps(entries).encode()
        if 24 + len(header) > room:
            raise OSError(f"names of matrices too long for {path.name}")
        with open(path, "r+b") as file:
            file.write(MARK + bytes(8) + len(header).to_bytes(8, "little") + header)
            for name, matrix in matrices.items():
                file.seek(entries[name][3])
                file.write(matrix.data.data)
            file.truncate(at)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                data = np.frombuffer(mapped, np.uint8)
                total = self._checksum(data[16:])
                del data
            file.seek(8)
            file.write(total.to_bytes(8, "little"))


def cache_folder() -> Path | None:
    """Where packed weights are kept; None for a user without a home, or whose TGEN_CACHE_GB is 0. Raises UsageError."""
    if not limit_bytes():
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base) / "tgen" / "packed" if os.path.isabs(base) else None


def limit_bytes() -> int:
    """How many bytes the cached files may take together. Raises UsageError for a variable that holds no such number."""
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 2**40:
        message = f"the environment sets {LIMIT_VARIABLE}={text!r}: it is not a number of gigabytes, 0 or more"
        raise UsageError(message, f"unset {LIMIT_VARIABLE}, or give it another value")
    return int(limit * 1e9)


def _remove_oldest(kept: Path, limit: int) -> None:
    """Remove the files used longest ago until the rest fits the limit, and what killed processes left unfinished."""
    for left in kept.parent.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()
    used = []
    for path in kept.parent.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):  # another process may remove files too
            used.append((path != kept, path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, _, size, _ in used)
    for other, _, size, path in sorted(used):
        if total <= limit:
            return
        if other:
            path.unlink(missing_ok=True)
            total -= size


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
