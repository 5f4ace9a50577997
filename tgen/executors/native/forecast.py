"""Computes, from headers alone, how much memory a model will take on the native executor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array
from tgen.executors.formats import BYTES, NAMES, NUMBER_FORMATS
from tgen.executors.native import interface as c
from tgen.executors.native.library import kernels, loaded, new_handle
from tgen.executors.native.model import Cache, CachedRow, NativeModel, heads_of, pages_for
from tgen.executors.native.packed_cache import kept_file
from tgen.executors.native.packing import GGML_FORMATS, Place, block_bytes, packed_places
from tgen.executors.native.panels import BITS
from tgen.executors.native.weights import FORMATS, Copies, Empty, StoredMatrix, Weights, held_format
from tgen.options import RunOptions
from tgen.spec.recurrent import Shape
from tgen.spec.shapes import parameters


@dataclass(frozen=True, slots=True)
class Forecast:
    """How the weights are held, for people; the bytes of all weights; the bytes of a token in the cache; the file with packed weights."""

    widths: str
    weight_bytes: int
    cache_bytes_per_token: int
    packed_file: Path | None


def forecast(checkpoint: Checkpoint, options: RunOptions) -> Forecast:
    """The memory that a run with these options takes. Raises UsageError for an invalid TGEN_CACHE_GB."""
    wanted = NUMBER_FORMATS[options.dtype]
    places = packed_places(checkpoint.spec, checkpoint.matches, options.quantize)
    total = block_bytes(places)
    number_format, formats = wanted or checkpoint.matches.number_format, {place.format for place in places.values()}
    cache = cache_format(options, number_format, formats, checkpoint.paired)
    for name, shape in parameters(checkpoint.spec).items():
        module = name.removesuffix(".weight")
        if module not in places:
            stored = checkpoint.matches.parameters[name].tensor.number_format
            held = "F32" if len(shape) == 1 else held_format(module, stored, wanted, as_llama_cpp=cache in c.HALVES)
            total += math.prod(shape) * BYTES[held]
    return Forecast(
        widths(formats, number_format),
        total,
        0 if checkpoint.spec.decoder is None else Cache(loaded(), heads_of(checkpoint.spec.decoder), cache).page_bytes // c.LANES,
        kept_file(checkpoint, options.quantize) if places else None,
    )


def widths(packed: Iterable[int], number_format: str) -> str:
    """How weights are held, for people: the bits of packed matrices, or the number format if no matrix is packed."""
    bits = sorted({BITS[one] if one in BITS else c.BLOCKS[one].bits for one in packed})
    return f"weights of {' and '.join(map(str, bits))} bits" if bits else NAMES[number_format]


def cache_format(options: RunOptions, number_format: str, packed: Collection[int], paired: bool | None) -> int:
    """The library's format for keys and values: integers for quantised weights, unless --dtype asks for floats.

    For a GGUF file, quantised or in float16, it is llama.cpp's float16. Its order of multiplication depends on `paired`, which says whether
    the file orders the numbers of a head in pairs of neighbours; None for a folder.
    """
    as_llama_cpp = any(one in GGML_FORMATS.values() for one in packed) or (not packed and number_format == "F16")
    if as_llama_cpp and paired is not None and options.dtype == "auto":
        return c.HALVES[paired]
    if packed and options.dtype == "auto":
        return c.INT8
    return c.FLOAT32 if number_format == "F32" else c.FLOAT16


@dataclass(frozen=True, slots=True)
class RunMemory:
    """Bytes that a run takes besides Python and its modules. `buffers` hold vectors, tables of positions, and results."""

    weights: int
    cache: int
    buffers: int


def run_memory(checkpoint: Checkpoint, options: RunOptions, prompt: int, new: int, rows: int, at_once: int) -> RunMemory:
    """The memory after a prompt of `prompt` ids, of which a run reads up to `at_once`, and `new` ids in each of `rows` rows.

    An encoder reads the prompt in one run, and a decoder after it begins with one id. The library itself counts its caches and buffers,
    for a model without weights. Raises MemoryLimitError.
    """
    model = _outline(checkpoint, options)
    pages, runs = _plan(model, prompt, new, rows, at_once)
    cache = sum(model.caches[name].held_bytes(count) for name, count in pages.items())
    buffers = max(model.run_bytes(*run) for run in runs)
    results = max(
        4 * (sum(counts) * model.spec.width if chosen is None else len(chosen) * model.spec.vocab) for _, _, counts, chosen in runs
    )
    tables = model.table_bytes(max(row.length + sum(counts) for _, (row, *_), counts, _ in runs))
    tables += sum(matrix.data.nbytes for matrix in model.weights.held())
    return RunMemory(forecast(checkpoint, options).weight_bytes, cache, buffers + results + tables)


_Run = tuple[str, list[CachedRow], list[int], list[int] | None]  # the arguments of NativeModel.run that matter for its buffers


def _plan(model: NativeModel, prompt: int, new: int, rows: int, at_once: int) -> tuple[dict[str, int], list[_Run]]:
    """How many pages the rows of each cache take, and the runs that take most buffers."""
    pages: dict[str, int] = {}
    runs: list[_Run] = []
    reader, source = next(iter(model.caches)), None
    programs = model.programs.named
    if "decode" not in programs or "project" in programs:
        pages[reader] = pages_for(prompt)
        runs.append(("encode", [_row(model.caches[reader])], [prompt], None))
    if "fill" in programs:
        runs.append(("fill", [_row(model.caches[reader])], [prompt], [0]))
    if "project" in programs:
        pages["cross"] = pages_for(prompt)
        runs.append(("project", [_row(model.caches["cross"])], [prompt], None))
        source, prompt = _row(model.caches["cross"], prompt), 1
    if "decode" in programs:
        shared = prompt // c.LANES
        read = prompt + new - 1  # nobody reads the last token
        pages["decoder"] = shared + rows * (pages_for(read) - shared)
        last = min(prompt, at_once)
        runs.append(("decode", [_row(model.caches["decoder"], prompt - last, source)], [last], [last - 1]))
        if new > 1:
            decoding = [_row(model.caches["decoder"], read - 1, source) for _ in range(rows)]
            runs.append(("decode", decoding, [1] * rows, [*range(rows)]))
    return pages, runs


def _row(cache: Cache, length: int = 0, source: CachedRow | None = None) -> CachedRow:
    """A row without pages that has the length of one that has read so much."""
    row = cache.new_row(source)
    row.library.tgen_row_grow(row.address, length)
    return row


@dataclass(slots=True, kw_only=True)
class _Outlines(Weights):
    """Matrices with their shapes and formats but without numbers; those in `places` are packed."""

    shapes: Mapping[str, Shape]
    places: Mapping[str, Place]

    def vector(self, name: str) -> Array | None:
        """Some number, if the model has this parameter."""
        return np.zeros(1, np.float32) if name in self.matches.parameters else self._vectors.get(name)

    def _read(self, parameter: str, number_format: str | None, empty: Empty = np.empty) -> StoredMatrix:
        module, (rows, *columns) = parameter.removesuffix(".weight"), self.shapes[parameter]
        if module in self.places:
            held = self.places[module].format
        else:
            stored = self.matches.parameters[parameter].tensor.number_format
            held = FORMATS[held_format(module, stored, number_format, as_llama_cpp=self.as_llama_cpp)]
        return StoredMatrix(held, rows, math.prod(columns), empty((0,), np.dtype(np.uint8)))


def _outline(checkpoint: Checkpoint, options: RunOptions) -> NativeModel:
    """The model that a run with these options opens, but without weights. Raises MemoryLimitError."""
    spec, matches = checkpoint.spec, checkpoint.matches
    library, wanted = loaded(), NUMBER_FORMATS[options.dtype]
    places = packed_places(spec, matches, options.quantize)
    cache = cache_format(options, wanted or matches.number_format, {place.format for place in places.values()}, checkpoint.paired)
    shapes = parameters(spec)
    weights = _Outlines(matches, wanted, lambda *_: True, Copies(library), cache in c.HALVES, shapes=shapes, places=places)
    return NativeModel(library, spec, weights, new_handle(library, options.threads), next(iter(kernels(library).values())), cache)
