"""The C interface of the library: its structures and the signatures of its functions, in the order of src/model.h and src/entry.h."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_uint8, c_uint64, c_void_p
from typing import Any, ClassVar, NamedTuple

FLOAT32, FLOAT16, BFLOAT16, F16, INT8, INT4, Q8_0, Q4_0, Q4_1, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS, *HALVES = range(18)
EMBED, JOIN, MULTIPLY, ATTEND, SELECT, STORE_KEYS, EXPERTS = range(7)
HIDDEN, MIXED, INNER, OUTPUT, PROJECTED, LOGITS, ROUTED = range(7)
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "relu": 4, "relu2": 5, "xielu": 6, "clamped": 7, "gelu_half": 8}
SCORES = {"softmax": 0, "sigmoid": 1, "sparsemixer": 2}
SPANS = {"head": 0, "own": 1, "width": 2}
LANES = 16


class Blocks(NamedTuple):
    """The bits of a format's integers in the file, the layout of its panels (`Blocks` of src/model.h), and the columns of a block."""

    bits: int
    low: int
    high: int
    width: int
    minima: bool
    columns: int


BLOCKS = {
    Q4_1: Blocks(4, 4, 0, 32, True, 64),
    Q5_1: Blocks(5, 4, 2, 32, True, 64),
    Q2_K: Blocks(2, 4, 0, 16, True, 256),
    Q3_K: Blocks(3, 4, 0, 16, False, 256),
    Q4_K: Blocks(4, 4, 0, 32, True, 256),
    Q5_K: Blocks(5, 4, 2, 32, True, 256),
    Q6_K: Blocks(6, 4, 2, 16, False, 256),
    IQ4_XS: Blocks(4, 8, 0, 32, False, 256),
}


class Matrix(Structure):
    """A matrix [rows, columns] in one of the formats, and its bias."""

    _fields_: ClassVar = [("format", c_int32), ("rows", c_int32), ("columns", c_int32), ("data", c_void_p), ("bias", c_void_p)]


class Norm(Structure):
    """A norm's kind (0: root mean square, 1: layer norm), width and weights."""

    _fields_: ClassVar = [("kind", c_int32), ("width", c_int32), ("eps", c_float), ("weight", c_void_p), ("bias", c_void_p)]


class Rope(Structure):
    """Cosines and sines [positions, dim / 2]."""

    _fields_: ClassVar = [("dim", c_int32), ("positions", c_int32), ("cosine", c_void_p), ("sine", c_void_p)]


class Distances(Structure):
    """Numbers added to scores, [heads, 2 * reach], at the index key - query + reach."""

    _fields_: ClassVar = [("heads", c_int32), ("reach", c_int32), ("table", c_void_p)]


class Instruction(Structure):
    """One instruction of a program; src/model.h says what each field means."""

    _fields_: ClassVar = [
        ("kind", c_int32),
        *[(name, c_int32) for name in ("add", "early", "before", "after", "into")],
        ("scale", c_float),
        ("source", c_int32),
        ("target", c_int32),
        ("matrices", c_int32 * 3),
        ("gated", c_int32),
        ("activation", c_int32),
        ("softcap", c_float),
        ("offset", c_int32),
        ("constant", c_void_p),
        *[(name, c_int32) for name in ("layer", "cross", "causal", "heads", "window", "rope", "distances", "q_norm", "k_norm")],
        ("key_at", c_int32),
        ("value_at", c_int32),
        ("norm_span", c_int32),
        ("norm_after_rope", c_int32),
        *[(name, c_float) for name in ("clip", "growth_beta", "growth_span", "attention_scale")],
        ("sinks", c_void_p),
        ("formats", c_int32),
        *[
            (name, c_int32)
            for name in ("experts", "chosen", "scores", "normalised", "groups", "kept_groups", "group_best", "inner_formats")
        ],
        ("route_scale", c_float),
        ("jitter", c_float),
        ("correction", c_void_p),
    ]


class Program(Structure):
    """A program's instructions, and their number."""

    _fields_: ClassVar = [("instructions", POINTER(Instruction)), ("count", c_int32)]


class Batch(Structure):
    """The rows of one run and their ids side by side; src/model.h says what each field means."""

    _fields_: ClassVar = [
        ("rows", c_int32),
        ("tokens", c_int32),
        ("chosen", c_int32),
        ("row", POINTER(c_void_p)),
        ("start", POINTER(c_int32)),
        ("token_row", POINTER(c_int32)),
        ("ids", POINTER(c_int32)),
        ("vectors", c_void_p),
        ("selected", POINTER(c_int32)),
        ("result", c_void_p),
        ("result_stride", c_int64),
        ("interrupt", c_void_p),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "tgen_abi": (c_int32, []),
    "tgen_kernel_name": (c_char_p, [c_int32]),
    "tgen_kernel_runs": (c_int32, [c_int32]),
    "tgen_model_new": (c_void_p, [c_int32]),
    "tgen_model_free": (None, [c_void_p]),
    "tgen_model_threads": (c_int32, [c_void_p]),
    "tgen_model_set": (None, [c_void_p] * 6),
    "tgen_run": (c_int32, [c_void_p, c_int32, POINTER(Program), POINTER(Batch)]),
    "tgen_run_bytes": (c_int64, [c_void_p, c_int32, POINTER(Program), POINTER(Batch)]),
    "tgen_geometry_new": (c_void_p, [c_int32, c_int32, c_void_p, c_void_p]),
    "tgen_geometry_free": (None, [c_void_p]),
    "tgen_page_bytes": (c_int64, [c_void_p]),
    "tgen_cache_bytes": (c_int64, [c_void_p, c_int64]),
    "tgen_row_new": (c_void_p, [c_void_p, c_void_p]),
    "tgen_row_free": (None, [c_void_p]),
    "tgen_row_copy": (c_void_p, [c_void_p]),
    "tgen_row_truncate": (None, [c_void_p, c_int32]),
    "tgen_row_length": (c_int32, [c_void_p]),
    "tgen_row_grow": (None, [c_void_p, c_int32]),
    "tgen_row_reserve": (c_int32, [c_void_p, c_int32]),
    "tgen_row_read_page": (None, [c_void_p, c_int32, c_void_p]),
    "tgen_row_write_page": (None, [c_void_p, c_int32, c_void_p]),
    "tgen_pack": (None, [*[c_int32] * 5, c_void_p, c_void_p, c_int32, c_int32]),
    "tgen_read": (c_float, [c_void_p, c_int32, c_void_p, c_int64]),
    "tgen_scan_highest": (c_float, [c_int32, c_void_p, c_int64]),
    "tgen_scan_maxima": (None, [c_int32, c_void_p, c_int64, c_int64, c_void_p]),
    "tgen_scan_places": (c_int64, [c_int32, c_void_p, c_int64, c_float, c_int64, c_void_p]),
    "tgen_scan_keep": (None, [c_int32, c_void_p, c_void_p, c_int64, c_void_p]),
    "tgen_scan_rough_sums": (None, [c_int32, c_void_p, c_int64, c_int64, c_float, c_float, c_void_p]),
    "tgen_scan_exact_sums": (c_int64, [c_int32, c_void_p, c_int64, c_int64, c_double, c_double, *[c_void_p] * 5]),
    "tgen_scan_fewest": (c_int64, [c_int32, c_void_p, c_int64, c_int64, *[c_double] * 3, c_int32, c_int64, *[c_void_p] * 5]),
    "tgen_turns": (None, [c_void_p, c_int64, c_void_p, c_void_p]),
    "tgen_checksum": (c_uint64, [c_void_p, c_void_p, c_int64]),
    "tgen_finite": (c_int32, [c_void_p, c_int32, c_void_p, c_int64]),
    "tgen_memory_new": (POINTER(c_uint8), [c_int64]),
    "tgen_memory_free": (None, [POINTER(c_uint8)]),
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions declared. Raises AttributeError if it lacks a function."""
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
