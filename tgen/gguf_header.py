"""Reads the header of a GGUF file: its metadata, and the name, shape, type and place of each tensor. Knows no model and no NumPy.

The `gguf` package has a reader, too. It makes an array of each string, which takes 11 seconds for Qwen's vocabulary where this one takes
0.3, and it believes every count of a damaged file, so that it may never end. This one checks each length before it reads on.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import DOWNLOAD_HINT, READ_HINT, refuse_lfs_pointer

MARK, VERSIONS = b"GGUF", (2, 3)
SUFFIX = ".gguf"
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # of each value type, for `struct`
MOST_AXES, MOST_NUMBERS = 4, 2**40
MOST_TENSORS = 200_000
ALIGNMENT = 32  # bytes, unless the metadata says otherwise
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of the file: rows first, as NumPy has it; `kind` is ggml's number of its type, `start` a byte offset into the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's metadata by key and its tensors by name."""

    path: Path
    size: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def text(self, key: str) -> str | None:
        """A text of the metadata; None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def whole(self, key: str) -> int | None:
        """A whole number of the metadata; None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool | None:
        """True, false, or None where the metadata does not say."""
        value = self.metadata.get(key)
        return value if isinstance(value, bool) else None

    def items(self, key: str, kind: type) -> list[Any]:
        """A list of the metadata, empty where there is none. Raises CheckpointError if it holds anything but values of a kind."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or not all(type(one) is kind for one in value):
            raise CheckpointError(f"{self.path}: {key} is not a list of {kind.__name__} values", DOWNLOAD_HINT)
        return value


def first_files(folder: Path) -> list[Path]:
    """The models that lie in a folder as GGUF files: of a split one, its first part."""
    named = ((path, SHARD.fullmatch(path.name)) for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    return sorted(path for path, parts in named if parts is None or int(parts[2]) == 1)


def read_headers(path: Path) -> list[Header]:
    """The headers of a file and, where it is the first of a split model, of its other parts. Raises CheckpointError."""
    first = read_header(path)
    count = first.whole("split.count") or 1
    if count == 1:
        return [first]
    named = SHARD.fullmatch(path.name)
    if named is None or int(named[3]) != count or first.whole("split.no") != int(named[2]) - 1:
        hint = f"the names of its parts end in -00001-of-{count:05}{SUFFIX} and so on"
        raise CheckpointError(f"{path} is one of the {count} parts of a model, and its name does not say which", hint)
    paths = [path.with_name(f"{named[1]}-{number:05}-of-{count:05}{SUFFIX}") for number in range(1, count + 1)]
    for one in paths:
        if not one.is_file():
            raise CheckpointError(f"a part of the model is missing: {one.name}", "download the missing file into the same folder")
    return [read_header(one) for one in paths]


def read_header(path: Path) -> Header:
    """A file's header. Raises CheckpointError for a file that is damaged, UnsupportedError for one of another version."""
    refuse_lfs_pointer(path)
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}", READ_HINT) from error


@lru_cache(maxsize=2)  # the model and then its tokenizer are read from the same header
def _read(path: Path, size: int, _: int) -> Header:
    if size < 24:
        raise CheckpointError(f"{path} is damaged: it has {size} bytes", DOWNLOAD_HINT)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        mark, version, tensors, values = struct.unpack_from("<4sIQQ", data)
        if mark != MARK:
            raise CheckpointError(f"{path} is no GGUF file: it does not begin with GGUF", DOWNLOAD_HINT)
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            what = "in the byte order of other processors" if swapped else f"of version {version}"
            raise UnsupportedError(
                f"{path} is a GGUF file {what}, which is not implemented", "implemented: versions 2 and 3, little-endian"
            )
        reader = Reader(data, 24)
        try:
            metadata = reader.metadata(values)
            infos = reader.tensors(tensors, metadata.get("general.alignment", ALIGNMENT))
        except (ValueError, struct.error) as error:
            raise CheckpointError(f"{path} is damaged: {error}", DOWNLOAD_HINT) from error
    return Header(path, size, metadata, infos)


@dataclass(slots=True)
class Reader:
    """Reads on through a file's bytes. Its methods raise ValueError or struct.error where the file ends too early or makes no sense."""

    data: mmap.mmap
    place: int

    def metadata(self, count: int) -> dict[str, Any]:
        """So many keys with their values."""
        found: dict[str, Any] = {}
        for _ in range(self._sensible(count, 13)):
            key = self._text()
            found[key] = self._value(self._number("I"))
        return found

    def tensors(self, count: int, alignment: Any) -> dict[str, TensorInfo]:
        """So many tensors; their offsets count from the end of the header, rounded up to the alignment."""
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment = {alignment!r} is no power of two")
        if count > MOST_TENSORS:
            raise ValueError(f"it says that it has {count} tensors")
        found = {}
        for _ in range(self._sensible(count, 24)):
            name = self._text()
            axes = self._number("I")
            if not 0 < axes <= MOST_AXES:
                raise ValueError(f"the tensor {name} has {axes} axes")
            shape = tuple(self._number("Q") for _ in range(axes))[::-1]
            if math.prod(shape) > MOST_NUMBERS:
                raise ValueError(f"the tensor {name} has the shape {list(shape)}")
            if name in found:
                raise ValueError(f"it has two tensors of the name {name}")
            found[name] = TensorInfo(shape, self._number("I"), self._number("Q"))
        start = -(-self.place // alignment) * alignment
        return {name: TensorInfo(info.shape, info.kind, start + info.start) for name, info in found.items()}

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._number(_scalar(kind))
        kind, count = self._number("I"), self._number("Q")
        if kind == STRING:
            return [self._text() for _ in range(self._sensible(count, 8))]
        form = _scalar(kind)
        size = struct.calcsize(form)
        start = self.place
        self.place += size * self._sensible(count, size)
        return list(struct.unpack_from(f"<{count}{form}", self.data, start))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(form)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        start = self.place
        self.place += self._sensible(length, 1)
        return self.data[start : self.place].decode("utf-8")

    def _sensible(self, count: int, size: int) -> int:
        """A number of things that take `size` bytes at least. Raises ValueError if the file is too short for them."""
        if count * size > len(self.data) - self.place:
            raise ValueError(f"it ends at byte {len(self.data)}, within its header")
        return count


def _scalar(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"its metadata have a value of the unknown type {kind}")
    return SCALARS[kind]
