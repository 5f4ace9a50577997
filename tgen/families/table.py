"""How a family says where each parameter is found in a checkpoint. Knows neither files nor a tensor framework.

A table maps a parameter's name to a `Source`: the checkpoint's name for the tensor and what to take of it. The operations use only
what NumPy arrays and torch tensors have in common, so one table serves every executor and the check that runs before any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Take = Callable[[Any], Any]


def whole(tensor: Any) -> Any:
    """The tensor as it is."""
    return tensor


def transposed(tensor: Any) -> Any:
    """Rows and columns exchanged: GPT-2 stores matrices [inputs, outputs]."""
    return tensor.T if tensor.ndim == 2 else tensor


def part(index: int, of: int, then: Take = whole) -> Take:
    """The index-th of equal parts along the first axis, after `then` was applied: fused matrices taken apart."""

    def take(tensor: Any) -> Any:
        tensor = then(tensor)
        size = tensor.shape[0] // of
        return tensor[index * size : (index + 1) * size]

    return take


def interleaved(index: int, of: int, heads: int) -> Take:
    """The index-th of parts that alternate within each head: [heads, of, head_dim, ...] -> [heads * head_dim, ...]."""

    def take(tensor: Any) -> Any:
        head_dim = tensor.shape[0] // (heads * of)
        split = tensor.reshape(heads, of, head_dim, *tensor.shape[1:])[:, index]
        return split.reshape(heads * head_dim, *tensor.shape[1:])

    return take


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter comes from: a tensor of the checkpoint, and the part of it to take."""

    name: str
    take: Take = whole


@dataclass(frozen=True, slots=True)
class Table:
    """All sources of a family's checkpoint, by parameter name.

    `prefixes` are what some checkpoints put before every name (`transformer.`); `ignored` are endings of names that hold nothing learned.
    """

    sources: dict[str, Source]
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
