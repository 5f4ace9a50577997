"""A checkpoint's parameters as the library reads them: matrices as views of the mapped file if possible, vectors in float32."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tgen.checkpoint.mapped import FORMATS as NUMBERS
from tgen.checkpoint.mapped import Array, MappedFiles, matched, widened
from tgen.checkpoint.matching import Match, Matches, no_number
from tgen.errors import MemoryLimitError
from tgen.executors.native import interface as c
from tgen.spec.records import ExpertsSpec, ModelSpec

FORMATS = {"F32": c.FLOAT32, "F16": c.FLOAT16, "BF16": c.BFLOAT16}
LINE = 64  # bytes of a line of the processor's cache
ROWS_AT_ONCE = 2**18  # numbers of the rows that are converted together
COPIES_AT_ONCE = 2**26  # bytes of one piece of memory; what no copy uses of it takes no memory, but for the rest of a huge page
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]  # room for an array of this shape and type
EXACT = (".router", ".shared_gate")  # small, and a rounded score can choose another expert


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix [rows, columns] in a format of the library; `data` keeps the memory alive."""

    format: int
    rows: int
    columns: int
    data: Array


class Copies:
    """Memory for matrices that no file holds in the form that the library reads. It has huge pages, and copies start at cache lines."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._left: list[Array] = []

    def kept(self, array: Array) -> Array:
        """The array itself if it is a view of a file, else a copy in this memory. Raises MemoryLimitError."""
        if _owner(array) is not None or not array.nbytes:
            return array
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Room for an array. Raises MemoryLimitError."""
        count = math.prod(shape) * dtype.itemsize
        size = -(-count // LINE) * LINE
        place = next((place for place, left in enumerate(self._left) if left.nbytes >= size), len(self._left))
        if place == len(self._left):
            self._left.append(new_memory(self._library, max(size, COPIES_AT_ONCE)))
        memory, self._left[place] = self._left[place][:count], self._left[place][size:]
        return memory.view(dtype).reshape(shape)


@dataclass(slots=True)
class Weights:
    """The parameters of a checkpoint by name, in `number_format` ("F32", "F16" or "BF16"; None keeps the stored format).

    `finite` says whether an array of a format holds neither NaN nor infinity. `copies` takes the matrices that no file holds in the wanted
    form. `as_llama_cpp` says that vectors are rounded to float16 before a matrix in float16 multiplies them.
    """

    matches: Matches
    number_format: str | None
    finite: Callable[[int, Array], bool]
    copies: Copies
    as_llama_cpp: bool = False
    files: MappedFiles = field(default_factory=MappedFiles)
    _matrices: dict[str, StoredMatrix] = field(default_factory=dict)
    _vectors: dict[str, Array] = field(default_factory=dict)

    def matrix(self, name: str) -> StoredMatrix:
        """A module's matrix; for a tied head, the embedding. Raises CheckpointError for NaN or infinity."""
        if name == "head.out" and "head.out.weight" not in self.matches.parameters:
            name = "embedding"
        if name not in self._matrices:
            read = self._read(f"{name}.weight", self.number_format, self.copies.empty)
            held = c.F16 if self.as_llama_cpp and read.format == c.FLOAT16 else read.format
            self._matrices[name] = replace(read, format=held, data=self.copies.kept(read.data))
        return self._matrices[name]

    def as_stored(self, name: str) -> StoredMatrix:
        """A module's matrix in its stored format, which is not kept. Raises CheckpointError for NaN or infinity."""
        return self._read(f"{name}.weight", None)

    def put(self, name: str, matrix: StoredMatrix) -> None:
        """Use another matrix under this name."""
        self._matrices[name] = matrix

    def put_vector(self, name: str, vector: Array) -> None:
        """Use this vector in float32 under a name that the checkpoint lacks."""
        self._vectors[name] = vector

    def vector(self, name: str) -> Array | None:
        """A parameter in float32; None if the model lacks it. Raises CheckpointError for NaN or infinity."""
        if name not in self._vectors:
            if name not in self.matches.parameters:
                return None
            match = self.matches.parameters[name]
            array, dtype = self._taken(match)
            vector = np.array(widened(array, dtype), order="C")
            self.files.release(match.tensor, around=True)  # a huge page of the file for a few numbers
            if not np.isfinite(vector).all():
                raise no_number(name)
            self._vectors[name] = vector
        return self._vectors[name]

    def address(self, name: str) -> int:
        """The address of a parameter in float32; 0 if the model lacks it."""
        vector = self.vector(name)
        return 0 if vector is None else vector.ctypes.data

    def held(self) -> Iterable[StoredMatrix]:
        """The matrices that were taken or put."""
        return self._matrices.values()

    def step_bytes(self, spec: ModelSpec) -> int:
        """The bytes of all matrices that a decode step multiplies by. Of a mixture's experts, it counts as many as a token takes."""
        untied = "head.out.weight" in self.matches.parameters
        unread = {"embedding"} if untied else set()
        unread |= {name for name in self._matrices if name.endswith(".positions")}
        for stack_name, stack in spec.stacks.items():
            for number, layer in enumerate(stack.layers):
                if isinstance(part := layer.feed_forward, ExpertsSpec):
                    experts = f"{stack_name}.layers.{number}.feed_forward.experts"
                    idle = tuple(f"{experts}.{one}." for one in range(part.router.chosen, part.router.experts))
                    unread |= {name for name in self._matrices if name.startswith(idle)}
        return sum(matrix.data.nbytes for name, matrix in self._matrices.items() if name not in unread)

    def _taken(self, match: Match) -> tuple[Array, str]:
        return matched(match, self.files)

    def _read(self, parameter: str, number_format: str | None, empty: Empty = np.empty) -> StoredMatrix:
        match = self.matches.parameters[parameter]
        array, dtype = stored, _ = self._taken(match)
        wanted = held_format(parameter.removesuffix(".weight"), match.tensor.number_format, number_format, as_llama_cpp=self.as_llama_cpp)
        if dtype != wanted:
            array = self._in_parts(match, array, dtype, wanted, empty)
        elif not array.flags.c_contiguous:
            array = empty(stored.shape, stored.dtype)
            array[...] = stored
        if array is not stored or _owner(array) is None:
            self.files.release(match.tensor)  # nothing reads it there any more
        if not self.finite(FORMATS[wanted], array):
            raise no_number(parameter)
        return StoredMatrix(FORMATS[wanted], array.shape[0], math.prod(array.shape[1:]), array)

    def _in_parts(self, match: Match, array: Array, dtype: str, wanted: str, empty: Empty) -> Array:
        """A parameter in another format, made some rows at a time, so that little memory is taken besides the result."""
        some = max(1, ROWS_AT_ONCE // max(1, math.prod(array.shape[1:])))
        target = empty(array.shape, NUMBERS[wanted])
        for row in range(0, len(array), some):
            target[row : row + some] = converted(widened(array[row : row + some], dtype), wanted)
            self.files.release(match.tensor)
        return target


def _owner(array: Array) -> object:
    """What the numbers of an array belong to: None if NumPy took their memory, else the memory of a file or of the library."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner


def held_format(module: str, stored: str, wanted: str | None, *, as_llama_cpp: bool) -> str:
    """The number format in which a matrix is held: `wanted`, or else the stored one; float32 for those in EXACT.

    llama.cpp does not widen routers in float16, so neither does a model that computes as llama.cpp does.
    """
    if module.endswith(EXACT) and not (as_llama_cpp and stored == "F16"):
        return "F32"
    return wanted or stored


def converted(numbers: Array, dtype: str) -> Array:
    """Float32 numbers in another format, rounded to the nearest, ties to even; bfloat16 as uint16."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(numbers).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return numbers.astype(np.float16 if dtype == "F16" else np.float32)


def new_memory(library: ctypes.CDLL, size: int) -> Array:
    """Memory of `size` bytes, in huge pages if the system has them. Raises MemoryLimitError."""
    memory = library.tgen_memory_new(size)
    if not memory:
        raise MemoryLimitError("memory ran out for the weights", "use a smaller model")
    array = np.ctypeslib.as_array(memory, shape=(size,))
    weakref.finalize(array, library.tgen_memory_free, memory).atexit = False
    return array


def address(array: Array) -> ctypes.c_void_p:
    """The address of an array's numbers."""
    return ctypes.c_void_p(array.ctypes.data)
