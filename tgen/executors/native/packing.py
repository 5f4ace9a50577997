"""Packs matrices into panels with 8 or 4 bits a weight: floats by rounding, integers that a folder stores without loss."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tgen.checkpoint.mapped import Array
from tgen.checkpoint.matching import Match
from tgen.errors import MemoryLimitError
from tgen.executors.native import interface as c
from tgen.executors.native.panels import GROUP, panels
from tgen.executors.native.weights import StoredMatrix, Weights, address
from tgen.families.table import Interleaved, Part, Reorder, Rows, moved
from tgen.options import Quantize
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters

ROWS_AT_ONCE = 256  # of one task; a multiple of a panel's 16
FORMATS = {"int8": c.INT8, "int4": c.INT4}
BITS = {c.INT8: 8, c.INT4: 4}
PRECISE = ("embedding", "head.out")  # have 8 bits under int4 too: their errors reach every logit
LOOKED_UP = ("positions", "types", "bias")  # tables, which are not multiplied by


@dataclass(frozen=True, slots=True)
class Packer:
    """What packing takes: the library, the kernel's number in it, and how many threads share the work."""

    library: ctypes.CDLL
    kernel: int
    threads: int

    def pack_all(self, weights: Weights, formats: Mapping[str, int], done: Callable[[int], None]) -> dict[str, StoredMatrix]:
        """The matrices of these names in these formats; `done` counts them. Raises CheckpointError for NaN or infinity."""
        packed = {}
        for name, number_format in formats.items():
            match = weights.matches.parameters[f"{name}.weight"]
            if _is_lossless(weights, match, number_format):
                packed[name] = self.pack_integers(weights, match)
            else:
                packed[name] = self.pack(weights.as_stored(name), number_format)
            weights.files.release(match.tensor)
            done(1)
        return packed

    def pack(self, matrix: StoredMatrix, number_format: int) -> StoredMatrix:
        """A matrix of floats, rounded to INT8 or INT4."""
        packed = self._new_memory(number_format, matrix.rows, matrix.columns)
        source, target = address(matrix.data), address(packed)

        def some(first: int, last: int) -> None:
            numbers = (self.kernel, number_format, matrix.format, matrix.rows, matrix.columns)
            self.library.tgen_pack(*numbers, source, target, first, last)

        self._in_parts(matrix.rows, some)
        return StoredMatrix(number_format, matrix.rows, matrix.columns, packed)

    def pack_integers(self, weights: Weights, match: Match) -> StoredMatrix:
        """A matrix that the folder stores as integers, with the same numbers."""
        stored = match.tensor.packed
        assert stored is not None
        words, scales = (_moved(array, match) for array in (weights.files.array(stored.words), weights.files.scales(stored)))
        rows, columns = len(words), match.tensor.shape[1]
        number_format = FORMATS[f"int{stored.bits}"]
        packed = self._new_memory(number_format, rows, columns)
        target = packed.view(np.uint32).reshape(-(-rows // c.LANES), -(-columns // (2 * GROUP)), -1)
        repeats = columns // GROUP // scales.shape[1]

        def some(first: int, last: int) -> None:
            halves = np.repeat(scales[first:last].astype(np.float16), repeats, axis=1)
            target[first // c.LANES : -(-last // c.LANES)] = panels(words[first:last], halves, stored.bits)

        self._in_parts(rows, some)
        return StoredMatrix(number_format, rows, columns, packed)

    def _in_parts(self, rows: int, work: Callable[[int, int], None]) -> None:
        """Let `work` do all rows, from `first` to `last` in each call."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda first: work(first, min(rows, first + ROWS_AT_ONCE)), range(0, rows, ROWS_AT_ONCE)))

    def _new_memory(self, number_format: int, rows: int, columns: int) -> Array:
        return new_memory(self.library, int(self.library.tgen_packed_bytes(number_format, rows, columns)))


def new_memory(library: ctypes.CDLL, size: int) -> Array:
    """Bytes in huge pages where the system has them, which decode reads a tenth faster."""
    memory = library.tgen_memory_new(size)
    if not memory:
        raise MemoryLimitError("memory ran out while packing the weights", "use a smaller model")
    array = np.ctypeslib.as_array(memory, shape=(size,))
    weakref.finalize(array, library.tgen_memory_free, memory).atexit = False
    return array


def packed_formats(weights: Weights, quantize: Quantize) -> dict[str, int]:
    """The format of each matrix to pack: those that the folder stores as integers and, under `quantize`, all others that are multiplied."""
    formats = {}
    for name in multiplied(weights.spec):
        match = weights.matches.parameters[f"{name}.weight"]
        stored = None if match.tensor.packed is None else FORMATS[f"int{match.tensor.packed.bits}"]
        if stored is not None and _is_lossless(weights, match, stored):
            formats[name] = stored
        elif quantize != "none":
            formats[name] = c.INT8 if name in PRECISE else FORMATS[quantize]
    return formats


def multiplied(spec: ModelSpec) -> Iterator[str]:
    """The modules whose matrices the model multiplies by. Untied embeddings and tables of positions are only looked up."""
    for parameter, shape in parameters(spec).items():
        name, kind = parameter.rsplit(".", 1)
        looked_up = name.rsplit(".", 1)[-1] in LOOKED_UP or (name == "embedding" and not (spec.head and spec.head.tied))
        if kind == "weight" and len(shape) == 2 and not looked_up:
            yield name


def _is_lossless(weights: Weights, match: Match, number_format: int) -> bool:
    """Whether panels of this format can hold the integers and scales of a matrix that the folder stores so."""
    stored = match.tensor.packed
    if stored is None or BITS[number_format] != stored.bits or match.tensor.shape[1] % GROUP:
        return False
    if not all(isinstance(step, Rows | Part | Interleaved | Reorder) for step in match.take):
        return False
    scales = weights.files.scales(stored)
    with np.errstate(over="ignore"):
        return bool((scales.astype(np.float16).astype(np.float32) == scales).all())


def _moved(array: Array, match: Match) -> Array:
    """The rows that a parameter takes from an array."""
    for step in match.take:
        array = moved(step, array)  # type: ignore[arg-type]
    return array
