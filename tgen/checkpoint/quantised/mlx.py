"""Reads MLX: integers of 2 to 8 bits with a scale and a bias for each group of columns, in matrices, embeddings and stacks of experts.

NAME.weight is stored as words [outputs, inputs * bits / 32], with NAME.scales and NAME.biases [outputs, groups] beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tgen.checkpoint.quantised.integers import blocks, unpacked
from tgen.checkpoint.quantised.method import SCALES, Allowed, Form, Method, Tensors, check, folded, misfit, refused
from tgen.checkpoint.stored import Floats, Packed, Reader, StoredTensor

CONFIG: Allowed = {"group_size": (16, 32, 64, 128), "bits": (2, 3, 4, 5, 6, 8), "mode": ("affine",)}


@dataclass(frozen=True, slots=True)
class Affine(Packed):
    """A matrix integer * scale + bias, [..., rows, columns]."""

    words: StoredTensor
    scale: StoredTensor
    bias: StoredTensor
    bits: int
    group: int

    @property
    def number_format(self) -> str:
        """The type of the scales."""
        return self.scale.dtype

    @property
    def stored_as(self) -> str:
        """INT4, INT8 and so on, by the bits of an integer."""
        return f"INT{self.bits}"

    def numbers(self, files: Reader) -> Floats:
        """The numbers in float32."""
        words, scales, biases = files.array(self.words), files.floats(self.scale), files.floats(self.bias)
        groups = scales.shape[-1]
        matrix = np.empty((*scales.shape, self.group), np.float32)
        flat = matrix.reshape(-1, groups, self.group)
        words, scales, biases = words.reshape(len(flat), -1), scales.reshape(-1, groups, 1), biases.reshape(-1, groups, 1)
        for some in blocks(len(flat), groups * self.group):
            integers = unpacked(words[some], self.bits, groups * self.group).reshape(-1, groups, self.group)
            flat[some] = integers.astype(np.float32) * scales[some] + biases[some]
        return matrix.reshape(*matrix.shape[:-2], groups * self.group)


def read(found: dict[str, Any]) -> Method:
    """The method for the settings in `quantization`.

    A module may have its own entry there: other bits and groups, or false if it is not quantised. Raises UnsupportedError for a setting
    that is not implemented.
    """
    own = {name: entry for name, entry in found.items() if name not in CONFIG and isinstance(entry, dict | bool)}
    for place, values in {"": {name: entry for name, entry in found.items() if name not in own}, **own}.items():
        if isinstance(values, dict):
            check(values, CONFIG, f"{place}." if place else "")
    if found.get("bits") is None or found.get("group_size") is None:
        raise refused("bits", found.get("bits"))
    return partial(folded, forms=(Form(".scales", (".weight", ".biases"), partial(_weight, found)),))


def _weight(found: Mapping[str, Any], module: str, parts: Tensors) -> StoredTensor:
    words, scale, bias = parts[".weight"], parts[".scales"], parts[".biases"]
    entry = found.get(module)
    settings = {**found, **entry} if isinstance(entry, dict) else found
    bits, group = int(settings["bits"]), int(settings["group_size"])
    columns = scale.shape[-1] * group if scale.shape else 0
    fits = words.dtype == "U32" and scale.dtype in SCALES and (bias.dtype, bias.shape) == (scale.dtype, scale.shape)
    if not fits or len(scale.shape) < 2 or columns * bits % 32 or words.shape != (*scale.shape[:-1], columns * bits // 32):
        raise misfit(module, parts, f"integers of {bits} bits in groups of {group} columns")
    shape = (*scale.shape[:-1], columns)
    return StoredTensor(words.file, "F32", shape, packed=Affine(words, scale, bias, bits, group))
