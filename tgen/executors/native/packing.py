"""Packs matrices into panels with 8 or 4 bits a weight, on several threads."""

from __future__ import annotations

import ctypes
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tgen.checkpoint.mapped import Array
from tgen.errors import MemoryLimitError
from tgen.executors.native.weights import StoredMatrix, address

ROWS_AT_ONCE = 256  # of one task; a multiple of a panel's 16


def new_memory(library: ctypes.CDLL, size: int) -> Array:
    """Bytes in huge pages where the system has them, which decode reads a tenth faster."""
    memory = library.tgen_memory_new(size)
    if not memory:
        raise MemoryLimitError("memory ran out while packing the weights", "use a smaller model")
    array = np.ctypeslib.as_array(memory, shape=(size,))
    weakref.finalize(array, library.tgen_memory_free, memory).atexit = False
    return array


def pack(library: ctypes.CDLL, matrix: StoredMatrix, number_format: int, threads: int) -> StoredMatrix:
    """A matrix in the format INT8 or INT4."""
    size = int(library.tgen_packed_bytes(number_format, matrix.rows, matrix.columns))
    packed = new_memory(library, size)

    def some(first: int) -> None:
        last = min(matrix.rows, first + ROWS_AT_ONCE)
        library.tgen_pack(number_format, matrix.format, matrix.rows, matrix.columns, address(matrix.data), address(packed), first, last)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, matrix.rows, ROWS_AT_ONCE)))
    return StoredMatrix(number_format, matrix.rows, matrix.columns, packed)
