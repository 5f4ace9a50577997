"""Computes, from headers alone, how much memory a model's weights and cache will take on the native executor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tgen.checkpoint.container import Checkpoint
from tgen.executors.formats import BYTES, NAMES, NUMBER_FORMATS
from tgen.executors.native import interface as c
from tgen.executors.native.packed_cache import kept_file
from tgen.executors.native.packing import GGML_FORMATS, block_bytes, packed_places
from tgen.executors.native.panels import BITS, panel_bytes
from tgen.executors.native.weights import held_format
from tgen.options import RunOptions
from tgen.spec.cache import row_numbers
from tgen.spec.records import ModelSpec
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
        _cache_bytes_per_token(checkpoint.spec, cache),
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


def _cache_bytes_per_token(spec: ModelSpec, number_format: int) -> int:
    """Bytes of a token's keys and values in all layers: a sixteenth of a page, by head_bytes of src/model.h."""
    if number_format != c.INT8 or spec.decoder is None:
        return row_numbers(spec, 1) * (4 if number_format == c.FLOAT32 else 2)
    mixers = spec.decoder.attentions
    return sum(m.kv_heads * (panel_bytes(8, c.LANES, m.head_dim) // c.LANES + 4 + -(-m.head_dim // c.LANES) * c.LANES) for m in mixers)
