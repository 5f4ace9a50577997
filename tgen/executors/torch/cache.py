"""The cache: for each row of a session, each layer's keys and values of the ids that the row has read.

Rows share no buffers, so a row takes memory for its own length, leaves without a copy of the others, and can move to another session.
Each kind of mixer makes its own kind of layer cache; attention makes `KeyValues`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A buffer's size is a multiple of this many positions. A full buffer grows by a quarter, so a step rarely copies, and at most a fifth of a
# long row's buffer is unused.
BLOCK = 16


class KeyValues:
    """One attention layer's keys and values of one row, in one buffer [2, kv_heads, capacity, head_dim]."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer

    def store(self, start: int, kv: Tensor) -> Tensor:
        """Write keys and values [2, kv_heads, n, head_dim] at positions start to start + n; return a view of all positions before the end.

        It overwrites whatever these positions held, so a failed step can be repeated.
        """
        end = start + kv.shape[2]
        if end > self.buffer.shape[2]:
            self.buffer = _grown(self.buffer, start, end)
        self.buffer.narrow(2, start, end - start).copy_(kv)
        return self.buffer.narrow(2, 0, end)

    def copy(self, length: int) -> KeyValues:
        """The first `length` positions in a buffer of their own."""
        return KeyValues(_grown(self.buffer, length, length))

    @property
    def bytes(self) -> int:
        """The memory that the buffer takes."""
        return self.buffer.nbytes


def capacity(start: int, end: int) -> int:
    """The size of a buffer that must hold `end` positions: a quarter larger if it already holds some (`start` > 0)."""
    wanted = end + end // 4 if start else end
    return -(-wanted // BLOCK) * BLOCK


def _grown(buffer: Tensor, start: int, end: int) -> Tensor:
    """A larger buffer with the first `start` positions of this one."""
    both, heads, _, head_dim = buffer.shape
    larger = buffer.new_empty(both, heads, capacity(start, end), head_dim)
    larger[:, :, :start] = buffer[:, :, :start]
    return larger


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A text that the encoder has read: its length m, and its keys and values for the decoder's cross-attention.

    `layers` holds a pair [batch, kv_heads, m, head_dim] for each layer. Rows of a session that answer the same text share one source, of
    batch 1. A padded batch has `positions` [batch, m], which are -1 at padding.
    """

    length: int
    layers: list[tuple[Tensor, Tensor]]
    positions: Tensor | None = None

    @property
    def bytes(self) -> int:
        """The memory that keys and values take."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


@dataclass(slots=True)
class Row:
    """One sequence: how many ids it has read, each layer's cache, and the source that it answers, if there is one."""

    length: int
    layers: list[KeyValues]
    source: Source | None = None

    def copy(self) -> Row:
        """The same row with buffers of its own; the source is shared."""
        return Row(self.length, [layer.copy(self.length) for layer in self.layers], self.source)

    @property
    def bytes(self) -> int:
        """The memory that the row's layers take; a shared source is not counted."""
        return sum(layer.bytes for layer in self.layers)


def empty_key_values(heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
    """A cache that holds nothing and takes no memory."""
    return KeyValues(torch.empty(2, heads, 0, head_dim, device=device, dtype=dtype))
