"""Reads compressed-tensors, which llm-compressor writes: integers packed into words or stored as bytes, and floats of 8 bits.

A packed matrix NAME.weight is stored as NAME.weight_packed, NAME.weight_scale and NAME.weight_shape, with NAME.weight_zero_point and
NAME.weight_g_idx in some folders. A matrix in bytes is stored as NAME.weight and NAME.weight_scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tgen.checkpoint.quantised.floats import FLOATS, scaled
from tgen.checkpoint.quantised.integers import Grouped, Integers
from tgen.checkpoint.quantised.method import ABSENT, SCALES, Allowed, Form, Method, check, folded, misfit, refused
from tgen.checkpoint.quantised.order import column_groups
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT

METHOD, PACKED = "compressed-tensors", "pack-quantized"
FORMATS = (PACKED, "int-quantized", "float-quantized", "naive-quantized", "dense", "mixed-precision")
WORDS, SCALE, SHAPE, ZEROS, INDEX = "weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"
# The values that each key of `quantization_config` (CONFIG), of a group in it (SCHEME) and of the group's weights (WEIGHTS) may have. None
# allows any value.
CONFIG: Allowed = {
    "quant_method": (METHOD, "compressed_tensors"),
    "format": FORMATS,
    "quantization_status": ("compressed", "frozen"),
    "config_groups": None,
    "ignore": None,
    "global_compression_ratio": None,
    "version": None,
    "kv_cache_scheme": None,  # tgen's KV cache has its own format
    "moe_sparsity_config": ABSENT,
    "sparsity_config": ABSENT,
    "transform_config": ABSENT,
}
SCHEME: Allowed = {
    "targets": None,
    "weights": None,
    "format": FORMATS,
    "input_activations": None,  # tgen does not quantise activations, which is more exact
    "output_activations": None,
}
WEIGHTS: Allowed = {
    "num_bits": tuple(range(2, 9)),
    "type": ("int", "float"),
    "symmetric": (True, False),
    "strategy": ("group", "channel", "tensor", "block"),
    "group_size": None,
    "dynamic": (False,),
    "actorder": ("static", "weight", "group", "dynamic", False),
    "block_structure": None,
    "scale_dtype": None,
    "zp_dtype": None,
    "observer": None,
    "observer_kwargs": None,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some matrices are quantised.

    `bits` is the size of a number, `group` the columns that share a scale (None is a whole row), and `block` the rows and columns that
    share one, in FP8 with blocks.
    """

    bits: int
    group: int | None
    block: tuple[int, int] | None = None


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    if isinstance(sparse := found.get("sparsity_config"), dict) and sparse.get("format") == "dense":
        found = {**found, "sparsity_config": None}
    check(found, CONFIG)
    groups = found.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise refused("config_groups", groups)
    schemes = [_scheme(group, f"config_groups.{name}.") for name, group in groups.items()]
    forms = (
        Form(f".{WORDS}", (f".{SCALE}", f".{SHAPE}"), partial(_packed, schemes), optional=(f".{ZEROS}", f".{INDEX}")),
        Form(f".{SCALE}", (".weight",), partial(_in_bytes, schemes), optional=(f".{ZEROS}",)),
    )
    return partial(folded, forms=forms)


def _scheme(group: object, place: str) -> Scheme:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(group, dict) or not isinstance(weights, dict):
        raise refused(f"{place}weights", weights)
    check(group, SCHEME, place)
    check(weights, WEIGHTS, f"{place}weights.")
    bits, size, strategy = int(weights.get("num_bits") or 8), weights.get("group_size"), weights.get("strategy")
    if weights.get("type") == "float" and bits != 8:
        raise refused(f"{place}weights.num_bits", bits)
    if strategy is None:
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    if strategy == "block":
        return Scheme(bits, None, _block(weights.get("block_structure"), f"{place}weights.block_structure"))
    if strategy != "group":
        return Scheme(bits, None)
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise refused(f"{place}weights.group_size", size)
    return Scheme(bits, size)


def _block(value: object, place: str) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2 and all(type(size) is int and size > 0 for size in value):
        return value[0], value[1]
    raise refused(place, value)


def quantization_config(bits: int, group: int, ignored: Sequence[str]) -> dict[str, object]:
    """The `quantization_config` of a folder whose matrices are integers of `bits` bits in groups of columns, except `ignored` modules."""
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group, "dynamic": False}
    scheme = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": METHOD,
        "format": PACKED,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": list(ignored),
        "kv_cache_scheme": None,
    }


def _packed(schemes: Sequence[Scheme], module: str, parts: dict[str, StoredTensor]) -> StoredTensor:
    """A matrix from words of 32 bits."""
    words, scale, zeros, index = (parts.get(f".{ending}") for ending in (WORDS, SCALE, ZEROS, INDEX))
    assert words is not None and scale is not None
    rows, columns = _shape(f"{module}.{SHAPE}", parts[f".{SHAPE}"])
    for scheme in schemes:
        group = scheme.group or columns
        groups = -(-columns // group) if group > 0 else 0
        fits = words.dtype == "I32" and words.shape == (rows, -(-columns * scheme.bits // 32)) and _scales_fit(scale, rows, groups)
        if fits and (zeros is None or (zeros.dtype, zeros.shape) in _zero_points(scheme.bits, rows, groups)):
            break
    else:
        raise misfit(module, parts, f"a matrix of {rows} x {columns} and the groups of config.json")
    if index is not None:
        index = column_groups(f"{module}.{INDEX}", index, columns, group)
    packed = Grouped(
        Integers(words, scheme.bits, (rows, columns)),
        _by_rows(scale, rows),
        group,
        zeros=None if zeros is None else _zeros(zeros, scheme.bits, rows, groups),
        index=index,
    )
    return StoredTensor(words.file, "F32", (rows, columns), packed=packed)


def _in_bytes(schemes: Sequence[Scheme], module: str, parts: dict[str, StoredTensor]) -> StoredTensor:
    """A matrix of signed bytes or of floats of 8 bits."""
    matrix, scale, zeros = parts[".weight"], parts[f".{SCALE}"], parts.get(f".{ZEROS}")
    if matrix.dtype in FLOATS:
        blocks = [scheme.block for scheme in schemes if scheme.block is not None]
        return scaled(module, parts, matrix, scale, blocks[0] if blocks else None)
    if matrix.dtype == "I8" and len(matrix.shape) == 2:
        rows, columns = matrix.shape
        for group in (scheme.group or columns for scheme in schemes):
            groups = -(-columns // group) if group else 0
            if _scales_fit(scale, rows, groups) and (zeros is None or (zeros.dtype, math.prod(zeros.shape)) == ("I8", rows * groups)):
                points = None if zeros is None else Integers(_by_rows(zeros, rows), 8, (rows, groups))
                packed = Grouped(Integers(matrix, 8, (rows, columns)), _by_rows(scale, rows), group, zeros=points)
                return StoredTensor(matrix.file, "F32", matrix.shape, packed=packed)
    raise misfit(module, parts, "each other and the groups of config.json")


def _scales_fit(scale: StoredTensor, rows: int, groups: int) -> bool:
    shapes = ((rows, groups), *(((rows,), (1,), (1, 1), ()) if groups == 1 else ()))
    return scale.dtype in SCALES and scale.shape in shapes


def _by_rows(tensor: StoredTensor, rows: int) -> StoredTensor:
    """Scales or zero points as numbers of rows: a single number is repeated for each row, [rows, 1]; any other tensor stays as it is."""
    if tensor.shape in ((), (1,), (1, 1)):
        return StoredTensor(tensor.file, tensor.dtype, (rows, 1), tensor.start, tensor.stop, (0, 0))
    return tensor


def _zero_points(bits: int, rows: int, groups: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The types and shapes that zero points may have: packed into words down the rows, or a byte each."""
    return ("I32", (-(-rows * bits // 32), groups)), ("I8", (rows, groups))


def _zeros(zeros: StoredTensor, bits: int, rows: int, groups: int) -> Integers:
    if zeros.dtype == "I32":
        return Integers(zeros.turned, bits, (rows, groups), down=True)
    return Integers(zeros, 8, (rows, groups))


def _shape(name: str, tensor: StoredTensor) -> tuple[int, int]:
    """The rows and columns that a tensor of two whole numbers holds."""
    size = {"I64": 8, "I32": 4}.get(tensor.dtype)
    if size is None or tensor.shape != (2,):
        raise CheckpointError(f"{name} is {tensor}, not two whole numbers", DOWNLOAD_HINT)
    data = tensor.content()
    rows, columns = (int.from_bytes(data[at : at + size], "little", signed=True) for at in (0, size))
    return rows, columns
