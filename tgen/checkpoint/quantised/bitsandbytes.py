"""Reads bitsandbytes: numbers of 4 bits (NF4, FP4) with a scale for each block, and integers of 8 bits with a scale for each row.

A matrix of 4 bits is NAME.weight (bytes), NAME.weight.absmax (the blocks' scales), NAME.weight.quant_map (the sixteen numbers) and a tensor
of JSON whose name ends in the type. Scales that are quantised in turn also have NAME.weight.nested_absmax and NAME.weight.nested_quant_map.
A matrix of 8 bits is NAME.weight and NAME.SCB, the largest magnitude in each row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tgen.checkpoint.quantised.integers import Grouped, Integers
from tgen.checkpoint.quantised.method import Allowed, Form, Method, Tensors, check, folded, misfit
from tgen.checkpoint.stored import Floats, Packed, Reader, StoredTensor
from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT

LARGEST = 127.0  # the largest integer of 8 bits
STATE = ".weight.quant_state.bitsandbytes__"
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
MOST_STATE = 4096  # bytes that the JSON may have
CONFIG: Allowed = {
    "load_in_4bit": (True, False),
    "load_in_8bit": (True, False),
    "_load_in_4bit": (True, False),
    "_load_in_8bit": (True, False),
    "bnb_4bit_quant_type": ("nf4", "fp4"),
    **dict.fromkeys(
        """
        bnb_4bit_compute_dtype bnb_4bit_quant_storage bnb_4bit_use_double_quant llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight
        llm_int8_skip_modules llm_int8_threshold modules_to_not_convert quant_method bnb_4bit_blocksize
        """.split()
    ),
}


@dataclass(frozen=True, slots=True)
class Nested:
    """How the scales are quantised in turn: each `size` of them share an outer scale, and `offset` is added to every scale."""

    size: int
    offset: float


@dataclass(frozen=True, slots=True)
class Nibbles(Packed):
    """Codes of 4 bits, two in a byte, the upper half first.

    A number is the entry of the `table` at its code, times the scale of its block of `size` numbers.
    """

    codes: StoredTensor
    table: StoredTensor
    absmax: StoredTensor
    shape: tuple[int, ...]
    size: int
    held_in: str
    kind: str
    nested: Nested | None = None
    nested_absmax: StoredTensor | None = None
    nested_table: StoredTensor | None = None

    @property
    def number_format(self) -> str:
        """The type that the matrix had before it was quantised."""
        return self.held_in

    @property
    def stored_as(self) -> str:
        """NF4 or FP4, as bitsandbytes calls the type."""
        return self.kind.upper()

    def numbers(self, files: Reader) -> Floats:
        """The matrix in float32."""
        codes, table, scales = files.array(self.codes).reshape(-1), files.floats(self.table), self._scales(files)
        count = math.prod(self.shape)
        values = np.empty((len(codes), 2), np.float32)
        values[:, 0], values[:, 1] = table[codes >> 4], table[codes & 15]
        flat = values.reshape(-1)[:count]
        whole = count // self.size * self.size
        flat[:whole].reshape(-1, self.size)[:] *= scales[: whole // self.size, None]
        flat[whole:] *= scales[-1]
        return flat.reshape(self.shape)

    def _scales(self, files: Reader) -> Floats:
        """The scale of each block."""
        if self.nested is None:
            return files.floats(self.absmax).reshape(-1)
        assert self.nested_absmax is not None and self.nested_table is not None
        codes = files.array(self.absmax).reshape(-1)
        outer = np.repeat(files.floats(self.nested_absmax).reshape(-1), self.nested.size)[: len(codes)]
        scales: Floats = files.floats(self.nested_table)[codes] * outer + np.float32(self.nested.offset)
        return scales


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    check(found, CONFIG)
    parts = ".weight", ".weight.absmax", ".weight.quant_map"
    more = ".weight.nested_absmax", ".weight.nested_quant_map"
    forms = [Form(f"{STATE}{kind}", parts, partial(_nibbles, kind), optional=more) for kind in ("nf4", "fp4")]
    rows = Form(".SCB", (".weight",), _bytes, optional=(".weight_format",))
    return partial(folded, forms=(*forms, rows))


def _bytes(module: str, parts: Tensors) -> StoredTensor:
    """A matrix of integers of 8 bits."""
    matrix, scale = parts[".weight"], parts[".SCB"]
    if matrix.dtype != "I8" or scale.dtype != "F32" or len(matrix.shape) != 2 or scale.shape != matrix.shape[:1]:
        raise misfit(module, parts, "a matrix of bytes with a scale for each row")
    rows, columns = matrix.shape
    if (form := parts.get(".weight_format")) is not None and any(form.content()):
        raise misfit(module, parts, "rows in their own order (weight_format 0)")
    packed = Grouped(Integers(matrix, 8, (rows, columns)), scale, columns, divisor=LARGEST, held_in="BF16")
    return StoredTensor(matrix.file, "F32", matrix.shape, packed=packed)


def _nibbles(kind: str, module: str, parts: Tensors) -> StoredTensor:
    """A matrix of numbers of 4 bits."""
    state = _state(f"{module}{STATE}{kind}", parts[f"{STATE}{kind}"])
    shown = {ending: tensor for ending, tensor in parts.items() if not ending.startswith(STATE)}
    codes, table, absmax = parts[".weight"], parts[".weight.quant_map"], parts[".weight.absmax"]
    shape, size, dtype = state.get("shape"), state.get("blocksize"), DTYPES.get(str(state.get("dtype")))
    if not isinstance(shape, list) or not all(type(one) is int and one > 0 for one in shape) or len(shape) != 2:
        raise misfit(module, shown, f"the shape {shape!r}")
    if type(size) is not int or size <= 0 or dtype is None or table.shape != (16,) or table.dtype != "F32":
        raise misfit(module, shown, f"blocks of {size!r} numbers of the type {state.get('dtype')!r}")
    count, scales = math.prod(shape), math.prod(absmax.shape)
    codes = StoredTensor(codes.file, "U8", (codes.stop - codes.start,), codes.start, codes.stop)
    if codes.shape[0] != -(-count // 2) or scales != -(-count // size):
        raise misfit(module, shown, f"{count} numbers in blocks of {size}")
    nested = _nested(state, shown, module, scales)
    if absmax.dtype != ("F32" if nested is None else "U8"):
        raise misfit(module, shown, f"blocks of {size} numbers")
    outer = (parts.get(".weight.nested_absmax"), parts.get(".weight.nested_quant_map"))
    packed = Nibbles(codes, table, absmax, tuple(shape), size, dtype, kind, nested, *outer)
    return StoredTensor(codes.file, "F32", tuple(shape), packed=packed)


def _nested(state: dict[str, Any], parts: Tensors, module: str, scales: int) -> Nested | None:
    """How the scales are quantised; None if they are not."""
    absmax, table = parts.get(".weight.nested_absmax"), parts.get(".weight.nested_quant_map")
    if absmax is None and table is None:
        return None
    size, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if not isinstance(size, int) or size <= 0 or not isinstance(offset, int | float) or absmax is None or table is None:
        raise misfit(module, parts, f"scales in blocks of {size!r}, with the offset {offset!r}")
    if (absmax.shape, absmax.dtype, table.shape, table.dtype) != ((-(-scales // size),), "F32", (256,), "F32"):
        raise misfit(module, parts, f"scales in blocks of {size}")
    return Nested(size, float(offset))


def _state(name: str, tensor: StoredTensor) -> dict[str, Any]:
    """The JSON object that a tensor of bytes holds. Raises CheckpointError if it holds none."""
    try:
        if tensor.dtype != "U8" or tensor.stop - tensor.start > MOST_STATE:
            raise ValueError("not a short text")
        state = json.loads(tensor.content())
        if not isinstance(state, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} holds no JSON object", DOWNLOAD_HINT) from error
    return state
