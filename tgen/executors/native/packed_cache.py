"""Keeps packed weights in the user's cache folder: one file for each model and quantisation, which later runs map into memory.

A file's name is a digest of everything that its content depends on: the weights and adapters, what the model takes from them, the
quantisation, and the version of this format. The file holds MARK, a checksum of the rest, the length of the header, the header (the places
of the matrices in JSON), and from the next page on the block of the matrices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.digests import Digests
from tgen.checkpoint.mapped import Array, use_huge_pages
from tgen.errors import UsageError
from tgen.executors.native.packing import Block, Place
from tgen.files import TEMPORARY, write_atomically

FORMAT = "packed weights 3"  # changes with the layout of panels and with what packing computes
MARK = b"tgenpack"
START = len(MARK) + 16  # bytes before the header
PAGE = 4096
SUFFIX = ".packed"
LIMIT_VARIABLE, DEFAULT_LIMIT = "TGEN_CACHE_GB", 20.0
ABANDONED = 86400  # seconds; an unfinished file that is older belongs to no running process

Checksum = Callable[[Array], int]


class PackedCache:
    """The cached file of a checkpoint under a quantisation. `read` and `write` raise no error for a bad folder or file."""

    def __init__(self, folder: Path, checkpoint: Checkpoint, quantize: str, checksum: Checksum, threads: int) -> None:
        """`checksum` computes 64 bits from bytes. Raises OSError if the weights cannot be read."""
        self.path = folder / _name(checkpoint, quantize, Digests(folder, threads).of)
        self._checksum = checksum

    def read(self) -> Block | None:
        """The matrices; None if there is no such file or it is damaged."""
        try:
            with open(self.path, "rb") as file:
                block = self._parsed(file)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path)  # the files used longest ago are removed first
        return block

    def write(self, block: Block) -> str | None:
        """Keep the matrices for later runs. Returns the reason if that is not possible, else None."""
        if block.data.nbytes > (limit := limit_bytes()):
            return f"they take {block.data.nbytes / 1e9:.1f} GB, and {LIMIT_VARIABLE} allows {limit / 1e9:g}"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self.path, lambda path: self._fill(path, block), shared=True)
            _remove_oldest(self.path, limit)
        except OSError as error:
            return f"{error.filename or self.path}: {error.strerror or error}"
        return None

    def _parsed(self, file: BinaryIO) -> Block:
        """The block that a file holds. Raises ValueError, KeyError or TypeError for a damaged file."""
        start = file.read(START)
        header = file.read(int.from_bytes(start[16:24], "little"))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        use_huge_pages(mapped)
        data = np.frombuffer(mapped, np.uint8)[_aligned(START + len(header)) :]
        if start != self._start(header, data):
            raise ValueError("damaged")
        return Block({name: Place(*place) for name, place in json.loads(header).items()}, data)

    def _fill(self, path: Path, block: Block) -> None:
        header = json.dumps(block.places).encode()
        with open(path, "r+b") as file:
            file.write(self._start(header, block.data) + header)
            file.seek(_aligned(file.tell()))
            file.write(block.data.data)

    def _start(self, header: bytes, data: Array) -> bytes:
        """The first bytes of a file with this header and these data."""
        length = len(header).to_bytes(8, "little")
        check = hashlib.blake2b(length + header + self._checksum(data).to_bytes(8, "little"), digest_size=8).digest()
        return MARK + check + length


def kept_file(checkpoint: Checkpoint, quantize: str) -> Path | None:
    """The cached file; None if there is none, or if its name is not known without reading all weights."""
    folder = cache_folder()
    if folder is None:
        return None
    digests = Digests(folder, 1)
    if any(digests.remembered(file) is None for file in _files(checkpoint)):
        return None
    path = folder / _name(checkpoint, quantize, digests.of)
    return path if path.exists() else None


def _name(checkpoint: Checkpoint, quantize: str, digest: Callable[[Path], str]) -> str:
    """The name of the cached file. Raises OSError if the weights cannot be read."""
    takes = [(name, match.take) for name, match in sorted(checkpoint.matches.parameters.items())]
    contents = [(file.name, digest(file)) for file in _files(checkpoint)]
    adapters = [(adapter.identity(), digest(adapter.weights)) for adapter in checkpoint.adapters]
    parts = [FORMAT, quantize, checkpoint.config, checkpoint.spec, takes, contents, *adapters]
    return hashlib.blake2b("\n".join(map(repr, parts)).encode(), digest_size=16).hexdigest() + SUFFIX


def _files(checkpoint: Checkpoint) -> list[Path]:
    """The files of the weights."""
    return sorted({tensor.file for match in checkpoint.matches.parameters.values() for tensor in match.tensor.parts})


def cache_folder() -> Path | None:
    """The folder of the packed weights; None if the user has no home folder, or if TGEN_CACHE_GB is 0. Raises UsageError."""
    if not limit_bytes():
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base) / "tgen" / "packed" if os.path.isabs(base) else None


def limit_bytes() -> int:
    """The bytes that the cached files may take together. Raises UsageError if TGEN_CACHE_GB is no such number."""
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
    """Remove the files used longest ago until the rest fits the limit, and the unfinished files of killed processes."""
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
    return -(-place // PAGE) * PAGE
