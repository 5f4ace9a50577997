"""Packs matrices into panels: floats by rounding them to 8 or 4 bits a weight, stored integers without loss."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.mapped import Array
from tgen.checkpoint.matching import Match, Matches, no_number
from tgen.checkpoint.stored import BlockParts, Packed, StoredTensor
from tgen.executors.native import interface as c
from tgen.executors.native.panels import BITS, GROUP, Halves, Words, block_panels, integers, matrix_bytes, panel_bytes, panels
from tgen.executors.native.weights import EXACT, StoredMatrix, Weights, address, new_memory
from tgen.families.table import Interleaved, Part, Reorder, Rows, moved
from tgen.options import Quantize
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters

ROWS_AT_ONCE = 256  # rows that a thread packs at a time; a multiple of a panel's 16
FORMATS = {"int8": c.INT8, "int4": c.INT4}
# The formats of GGUF files by ggml's names. Matrices in them multiply vectors as llama.cpp does.
GGML_FORMATS = {name: getattr(c, name) for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")}
PRECISE = ("embedding", "head.out")  # have 8 bits even under int4, because their errors reach every logit
LOOKED_UP = ("positions", "types", "bias", "distances", "relative", "block_bias")  # tables whose rows are looked up, not multiplied
HALF_ROUNDING = 2.0**-11  # the largest relative error of a number that is rounded to float16 within its normal range


class Place(NamedTuple):
    """A packed matrix in a block: its format and shape, the offset of its panels and their bytes."""

    format: int
    rows: int
    columns: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Block:
    """Packed matrices by name, side by side in one piece of memory: in its own huge pages, a small matrix would leave much unused."""

    places: Mapping[str, Place]
    data: Array

    def matrices(self) -> dict[str, StoredMatrix]:
        """The matrices as views of the block."""
        return {name: self._matrix(place) for name, place in self.places.items()}

    def _matrix(self, place: Place) -> StoredMatrix:
        return StoredMatrix(place.format, place.rows, place.columns, self.data[place.start : place.start + place.size])


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs matrices with a kernel of the library, whose number is `kernel`, on `threads` threads."""

    library: ctypes.CDLL
    kernel: int
    threads: int

    def pack_all(self, weights: Weights, places: Mapping[str, Place], done: Callable[[int], None]) -> Block:
        """A block with the weights of the modules in `places`; it calls `done(1)` after each.

        If panels cannot hold a matrix's stored integers or scales, the block lacks it, and the matrix stays in floats. Raises
        CheckpointError for NaN or infinity, MemoryLimitError.
        """
        block = Block(places, new_memory(self.library, block_bytes(places)))
        lacking = set()
        for name, target in block.matrices().items():
            match = weights.matches.parameters[f"{name}.weight"]
            packed = match.tensor.packed if _takes_whole_groups(match) else None
            if packed is not None and target.format in c.BLOCKS:
                self._pack_blocks(name, weights, packed, match, target)
            elif packed is not None and packed.panel_bits is not None and self._pack_integers(weights, packed, match, target):
                pass
            elif packed is not None and packed.is_rounded:
                self._pack_rows(name, weights, packed, match, target)
            elif packed is not None and packed.panel_bits is not None:
                lacking.add(name)
            else:
                self.pack(weights.as_stored(name), target)
            weights.files.release(match.tensor)
            done(1)
        return Block({name: place for name, place in places.items() if name not in lacking}, block.data)

    def pack(self, matrix: StoredMatrix, target: StoredMatrix) -> None:
        """Round a matrix of floats to the format of the target, and fill its panels."""

        def some(first: int, last: int) -> None:
            numbers = (self.kernel, target.format, matrix.format, matrix.rows, matrix.columns)
            self.library.tgen_pack(*numbers, address(matrix.data), address(target.data), first, last)

        self._in_parts(matrix.rows, some)

    def integers(self, matrix: StoredMatrix, bits: int) -> tuple[Words, Halves]:
        """A matrix of whole groups, rounded to integers of `bits` bits in the words of panels.py, and their scales."""
        number_format = FORMATS[f"int{bits}"]
        memory = np.empty(panel_bytes(bits, matrix.rows, matrix.columns), np.uint8)
        self.pack(matrix, StoredMatrix(number_format, matrix.rows, matrix.columns, memory))
        return integers(memory.view(np.uint32), bits, matrix.rows, matrix.columns)

    def _pack_integers(self, weights: Weights, packed: Packed, match: Match, target: StoredMatrix) -> bool:
        """Fill panels with the integers that the file stores. Returns False if panels cannot hold these integers or their scales."""
        found, bits = packed.panel(weights.files), BITS[target.format]
        if found is None:
            return False
        narrow, scales = found
        rows, halves = _moved(narrow.rows, match), _halves(_moved(scales, match))
        if halves is None:
            return False
        filled = target.data.view(np.uint32).reshape(-(-target.rows // c.LANES), -(-target.columns // (2 * GROUP)), -1)
        repeats = target.columns // GROUP // halves.shape[1]

        def some(first: int, last: int) -> None:
            repeated = np.repeat(halves[first:last], repeats, axis=1)
            filled[first // c.LANES : -(-last // c.LANES)] = panels(narrow.convert(rows[first:last]), repeated, bits)

        self._in_parts(target.rows, some)
        return True

    def _pack_blocks(self, name: str, weights: Weights, packed: Packed, match: Match, target: StoredMatrix) -> None:
        """Fill panels with the integers, scales and minima of a GGUF file's blocks."""
        narrow = packed.blocks(weights.files)
        rows = _moved(narrow.rows, match)
        filled = target.data.reshape(-(-target.rows // c.LANES), -(-target.columns // c.BLOCKS[target.format].columns), -1)

        def some(first: int, last: int) -> None:
            parts: BlockParts = narrow.convert(rows[first:last])
            if not (np.isfinite(parts.factors).all() and (parts.least is None or np.isfinite(parts.least).all())):
                raise no_number(f"{name}.weight")
            filled[first // c.LANES : -(-last // c.LANES)] = block_panels(parts, target.format)

        self._in_parts(target.rows, some)

    def _pack_rows(self, name: str, weights: Weights, packed: Packed, match: Match, target: StoredMatrix) -> None:
        """Round a matrix to the format of the target, some rows at a time, because all numbers as floats would take much memory."""
        narrow = packed.by_rows(weights.files)
        rows = _moved(narrow.rows, match)
        bits = BITS[target.format]  # a damaged Q4_0 or Q8_0 comes here, too; the library rounds to INT4 and INT8 alone, of the same layout
        each = panel_bytes(bits, c.LANES, target.columns)

        def some(first: int, last: int) -> None:
            numbers = narrow.convert(rows[first:last])
            if not np.isfinite(numbers).all():
                raise no_number(f"{name}.weight")
            place = target.data[first // c.LANES * each :]
            shape = (self.kernel, FORMATS[f"int{bits}"], c.FLOAT32, *numbers.shape)
            self.library.tgen_pack(*shape, address(numbers), address(place), 0, len(numbers))

        self._in_parts(target.rows, some)

    def _in_parts(self, rows: int, work: Callable[[int, int], None]) -> None:
        """Call `work(first, last)` for parts that cover all rows, on several threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda first: work(first, min(rows, first + ROWS_AT_ONCE)), range(0, rows, ROWS_AT_ONCE)))


def packed_places(spec: ModelSpec, matches: Matches, quantize: Quantize) -> dict[str, Place]:
    """The place of each matrix to pack: those that the file stores in fewer than 16 bits, and under `quantize` all that are multiplied.

    Stored integers are kept without loss if each 32 columns share a scale. Other numbers of fewer than 16 bits that may be rounded get
    8 bits.
    """
    places: dict[str, Place] = {}
    start = 0
    for name, rows, columns in _packable(spec, matches):
        match = matches.parameters[f"{name}.weight"]
        if quantize == "none" and (kind := _ggml_kind(match)) is not None:
            number_format = GGML_FORMATS[kind]
        elif (bits := _integer_bits(match)) is not None:
            number_format = FORMATS[f"int{bits}"]
        elif quantize != "none":
            number_format = c.INT8 if name in PRECISE else FORMATS[quantize]
        elif match.tensor.packed is not None and match.tensor.packed.is_rounded:
            number_format = c.INT8
        else:
            continue
        places[name] = Place(number_format, rows, columns, start, matrix_bytes(number_format, rows, columns))
        start += places[name].size
    return places


def block_bytes(places: Mapping[str, Place]) -> int:
    """The bytes that the matrices take together."""
    return sum(place.size for place in places.values())


def multiplied(spec: ModelSpec) -> Iterator[tuple[str, int, int]]:
    """Module, rows and columns of each matrix that may be packed.

    Untied embeddings and other tables are not among them, because their rows are only looked up; routers neither, because they stay exact.
    """
    for parameter, shape in parameters(spec).items():
        name, kind = parameter.rsplit(".", 1)
        looked_up = name.rsplit(".", 1)[-1] in LOOKED_UP or (name == "embedding" and not (spec.head and spec.head.tied))
        if kind == "weight" and len(shape) == 2 and not looked_up and not name.endswith(EXACT):
            yield name, *shape


def _packable(spec: ModelSpec, matches: Matches) -> Iterator[tuple[str, int, int]]:
    """The matrices of `multiplied`, and an untied embedding that 8 bits hold well enough: as floats, it would take more memory."""
    yield from multiplied(spec)
    packed = matches.parameters["embedding.weight"].tensor.packed
    if packed is not None and packed.is_rounded and not (spec.head and spec.head.tied):
        yield "embedding", spec.vocab, spec.row


def tensors_of_layers(spec: ModelSpec, matches: Matches) -> set[StoredTensor]:
    """The tensors of floats that hold matrices of the layers, as whole rows of whole groups of columns."""
    found = (matches.parameters[f"{name}.weight"] for name, _, _ in multiplied(spec) if name not in PRECISE)
    return {match.tensor for match in found if not match.tensor.is_narrow and _takes_whole_groups(match)}


def _integer_bits(match: Match) -> int | None:
    """The `panel_bits` of a parameter that consists of whole groups of integers; None for any other."""
    packed = match.tensor.packed
    return packed.panel_bits if packed is not None and _takes_whole_groups(match) else None


def _ggml_kind(match: Match) -> str | None:
    """The ggml type of the arithmetic of a parameter that consists of whole groups of a matrix in blocks; None for any other."""
    packed = match.tensor.packed
    return packed.multiplied_as if packed is not None and _takes_whole_groups(match) else None


def _takes_whole_groups(match: Match) -> bool:
    """Whether a parameter consists of whole rows of the tensor that it is taken from, and these of whole groups of columns."""
    return (
        len(match.tensor.shape) == 2
        and match.tensor.shape[1] % GROUP == 0
        and all(isinstance(step, Rows | Part | Interleaved | Reorder) for step in match.take)
    )


def _halves(scales: npt.NDArray[np.float32]) -> Halves | None:
    """The scales in float16; None if rounding changes one by more than HALF_ROUNDING of the largest scale."""
    with np.errstate(over="ignore", invalid="ignore"):
        halves = scales.astype(np.float16)
        furthest = np.abs(halves.astype(np.float32) - scales).max()
    return halves if furthest <= HALF_ROUNDING * np.abs(scales).max() else None


def _moved(array: Array, match: Match) -> Array:
    """The rows that a parameter takes from an array."""
    for step in match.take:
        array = moved(step, array)  # type: ignore[arg-type]
    return array
