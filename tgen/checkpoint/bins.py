"""Finds where each tensor of a `.bin` lies in the file. It imports no torch and calls nothing that a file names.

Such a file holds raw numbers and a pickle, which is a program that builds the dictionary of tensors. This reader runs the program with
only the names and instructions that PyTorch writes, and puts its own objects in place of what the names stand for. It refuses large or
compressed programs, and limits numbers, tuples of sizes, arguments and keys, so that no single instruction makes much work. So reading
takes seconds and little memory, whatever the program contains.
Since PyTorch 1.6 the program and the numbers are records of a zip archive; in older files they follow one another.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT

MAX_PROGRAM = 2 * 2**20  # bytes; the program of a model with a thousand tensors has a tenth of this
MAX_CALLS = 50_000  # one for each tensor; MAX_PROGRAM bytes have no room for so many tensor names
MAX_AXES, MAX_ARGUMENTS, MAX_ROOT = 8, 8, 255
MAX_INTEGER = 2**80  # the largest integer that PyTorch writes is OLD_MAGIC
OLD_MAGIC, OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "BFloat16Storage": ("BF16", 2),
    "BoolStorage": ("BOOL", 1),
    "ByteStorage": ("U8", 1),
    "CharStorage": ("I8", 1),
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "IntStorage": ("I32", 4),
    "LongStorage": ("I64", 8),
    "ShortStorage": ("I16", 2),
}


class _CodeError(Exception):
    """The program names something that plain tensors do not need."""


class _Dictionary(dict[Any, Any]):
    """Stands for an OrderedDict, which a program makes empty and then fills."""

    def __init__(self) -> None:
        super().__init__()


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers; each tensor is a part of one."""

    key: str
    dtype: str
    item: int
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A part of a storage: its offset, shape and strides, counted in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def check(self) -> None:
        """Raise ValueError unless the tensor lies in its storage and spans at least as many numbers as it has elements."""
        if not type(self.shape) is type(self.strides) is tuple or not len(self.shape) == len(self.strides) <= MAX_AXES:
            raise ValueError("a tensor without proper axes")
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("sizes that are not whole numbers of 0 or more")
        if self.offset + self.span > self.storage.count or math.prod(self.shape) > self.span:
            raise ValueError("a tensor outside its storage")

    @property
    def span(self) -> int:
        """How many numbers of the storage there are from the first element to the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True))


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    tensor = _Tensor(storage, offset, shape, strides)
    tensor.check()
    return tensor


def _parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Dictionary,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


# The instructions that torch.save writes for dictionaries of tensors and for training states, in pickle protocol 2 and later.
INSTRUCTIONS = """
    APPEND APPENDS BINBYTES BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINSTRING BINUNICODE BINUNICODE8 BUILD EMPTY_DICT
    EMPTY_LIST EMPTY_TUPLE FRAME GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS
    SHORT_BINBYTES SHORT_BINSTRING SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE TUPLE1 TUPLE2 TUPLE3
""".split()
CODES: dict[str, int] = {name: getattr(pickle, name)[0] for name in INSTRUCTIONS}
PYTHON: dict[int, Callable[[Any], None]] = {**pickle._Unpickler.dispatch}


class _Program(pickle._Unpickler):
    """Python's unpickler, restricted to a table of names and instructions.

    The faster unpickler in C does not limit memory: a few bytes of a program could make it take huge amounts.
    """

    stack: list[Any]
    calls = 0
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {code: PYTHON[code] for code in CODES.values()}

    def find_class(self, module: str, name: str) -> Any:
        """The object that stands for a name. Raises _CodeError for a name that is not allowed."""
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) not in NAMES:
            raise _CodeError(ascii(f"{module}.{name}"[:80])[1:-1])
        return NAMES[module, name]

    def persistent_load(self, saved: Any) -> _Storage:
        """A storage, from its description."""
        if type(saved) is not tuple or not 5 <= len(saved) <= 6 or saved[5:] not in ((), (None,)):
            raise ValueError("not a storage")
        kind, name, key, _, count = saved[:5]
        if kind != "storage" or type(name) is not str or type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("not a storage")
        return _Storage(key, *STORAGES[name], count)

    def load_build(self) -> None:
        """Drop the attributes that a program gives to dictionaries, such as the versions of modules."""
        self.stack.pop()

    def load_reduce(self) -> None:
        """Run a call. Four bytes can repeat a call with the same tuple of arguments, so the numbers of calls and arguments are limited."""
        self.calls += 1
        if self.calls > MAX_CALLS or len(self.stack[-1]) > MAX_ARGUMENTS:
            raise ValueError("more calls or arguments than any model has")
        PYTHON[CODES["REDUCE"]](self)

    def load_long1(self) -> None:
        """Read an integer. Its size is limited, because later steps may multiply it by others."""
        PYTHON[CODES["LONG1"]](self)
        if abs(self.stack[-1]) > MAX_INTEGER:
            raise ValueError("a number larger than any in such a file")

    def load_setitem(self) -> None:
        """Set an entry of a dictionary. Only plain keys are allowed: hashing nested tuples can take forever."""
        _check_keys(self.stack[-2:-1])
        PYTHON[CODES["SETITEM"]](self)

    def load_setitems(self) -> None:
        """Set several entries."""
        _check_keys(self.stack[::2])
        PYTHON[CODES["SETITEMS"]](self)

    dispatch[CODES["BUILD"]] = load_build
    dispatch[CODES["REDUCE"]] = load_reduce
    dispatch[CODES["LONG1"]] = load_long1
    dispatch[CODES["SETITEM"]] = load_setitem
    dispatch[CODES["SETITEMS"]] = load_setitems


def _check_keys(keys: list[Any]) -> None:
    if not all(type(key) in (str, int) for key in keys):
        raise ValueError("a key that is neither a text nor a number")


def read_bin(path: Path) -> dict[str, StoredTensor]:
    """Every tensor by name. Raises CheckpointError for a damaged file, and for one that names other code than tensors need."""
    try:
        tensors, starts = _zipped(path) if zipfile.is_zipfile(path) else _old(path)
    except _CodeError as error:
        message = f"{path} needs unpickling code to load, which could run anything ({error}); only plain tensors are read"
        raise CheckpointError(message, "get the model as safetensors") from error
    except Exception as error:  # damaged zip archives and pickles raise many kinds of errors
        raise CheckpointError(f"{path} is damaged or truncated", DOWNLOAD_HINT) from error
    if not isinstance(tensors, dict) or not all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in tensors.items()):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors", "it may be a training state, not a model")
    return {name: _stored(path, tensor, starts[tensor.storage.key]) for name, tensor in tensors.items()}


def _stored(path: Path, tensor: _Tensor, base: int) -> StoredTensor:
    storage, rows = tensor.storage, [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    start = base + tensor.offset * storage.item
    strides = None if list(tensor.strides) == rows else tensor.strides
    return StoredTensor(path, storage.dtype, tensor.shape, start, start + tensor.span * storage.item, strides)


def _run(file: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """The result of a program, and the storages that it names."""
    storages: dict[str, _Storage] = {}

    class Program(_Program):
        def persistent_load(self, saved: Any) -> _Storage:
            storage = super().persistent_load(saved)
            if storages.setdefault(storage.key, storage) != storage:
                raise ValueError("a storage with two sizes")
            return storage

    return Program(file, encoding="utf-8").load(), storages


def _zipped(path: Path) -> tuple[Any, dict[str, int]]:
    """The result of an archive's program, and the offset in bytes of each storage."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        records = {record.filename: record for record in archive.infolist()}
        size = os.fstat(file.fileno()).st_size
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise ValueError("compressed records")
        [program] = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if records[program].file_size > MAX_PROGRAM or len(program) > MAX_ROOT:
            raise ValueError("a program of megabytes, or a name of kilobytes")
        root = program.removesuffix("data.pkl")
        if (order := records.get(f"{root}byteorder")) is not None and (order.file_size > 9 or archive.read(order) != b"little"):
            raise ValueError("numbers in another order of bytes")
        tensors, storages = _run(io.BytesIO(archive.read(program)))
        starts = {}
        for key, storage in storages.items():
            record = records[f"{root}data/{key}"]
            starts[key] = _start(file, record)
            if record.file_size != storage.count * storage.item or starts[key] + record.file_size > size:
                raise ValueError("a storage of another size")
        return tensors, starts


def _start(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """The offset of a record's bytes, which follow the record's own header.

    The name and the extra field of that header may be longer than the archive's directory says.
    """
    file.seek(record.header_offset)
    mark, name, notes = struct.unpack("<4s22xHH", file.read(30))
    if mark != b"PK\x03\x04":
        raise ValueError("a record without a header")
    return record.header_offset + 30 + int(name) + int(notes)


def _old(path: Path) -> tuple[Any, dict[str, int]]:
    """The same for a file older than PyTorch 1.6: five programs, then the storages, each after its count of numbers."""
    with open(path, "rb") as file:
        head = io.BytesIO(file.read(MAX_PROGRAM))
        magic, _ = _run(head)
        if magic != OLD_MAGIC:
            head.seek(0)
            return _run(head)[0], {}
        if _run(head)[0] != OLD_VERSION or _run(head)[0].get("little_endian") is not True:
            raise ValueError("another version")
        tensors, storages = _run(head)
        keys, _ = _run(head)
        if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
            raise ValueError("other storages than the tensors have")
        size, place, starts = os.fstat(file.fileno()).st_size, head.tell(), {}
        for key in keys:
            file.seek(place)
            (count,) = struct.unpack("<q", file.read(8))
            starts[key], place = place + 8, place + 8 + count * storages[key].item
            if count != storages[key].count:
                raise ValueError("a storage of another size")
        if place != size:
            raise ValueError("cut, or longer than it should be")
        return tensors, starts
