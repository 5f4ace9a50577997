"""A cache whose buffers never move and never grow: a slot for each row, so that a decode step can be recorded once and replayed.

A row in a slot has views of these buffers as its own buffers, so all other code that works on rows works on it too. A row that grows beyond
the capacity, or that another row replaces, gets a copy of its keys and values.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from torch import Tensor

from tgen.executors.torch.cache import KeyValues, Row

# The smallest capacity. Larger ones are powers of two and the sizes midway between them: finer steps than powers of two alone, because
# attention reads masked positions as well.
SMALLEST = 256


class StaticCache:
    """Keys and values of at most `slots` rows, each of at most `capacity` ids."""

    def __init__(self, like: Row, slots: int, capacity: int) -> None:
        """Make a buffer [2, slots, kv_heads, capacity, head_dim] for each layer; the first axis is as long as in the buffers of `like`."""
        self.capacity = capacity
        self._owners: list[weakref.ref[Row] | None] = [None] * slots
        self._buffers: list[Tensor] = []
        for number in range(len(like.layers)):
            both, heads, _, head_dim = like.key_values(number).buffer.shape
            self._buffers.append(like.key_values(number).buffer.new_zeros(both, slots, heads, capacity, head_dim))
        self._views = [[buffer[:, slot] for buffer in self._buffers] for slot in range(slots)]

    def seat(self, rows: Sequence[Row]) -> list[int]:
        """Give a slot to each of these rows and to no other, and return the slots. There must be enough slots, and every row must fit."""
        found = {id(owner): slot for slot, owner in enumerate(self._seated()) if owner is not None}
        self._release(keep={id(row) for row in rows})
        free = (slot for slot, owner in enumerate(self._owners) if owner is None)
        slots = [found[id(row)] if id(row) in found else next(free) for row in rows]
        for row, slot in zip(rows, slots, strict=True):
            self._take_in(row, slot)
        return slots

    def clear(self) -> None:
        """Give every row its own copy of its keys and values, and empty all slots."""
        self._release(keep=set())

    def write(self, layer: int, positions: Tensor, kv: Tensor) -> Tensor:
        """Write one position of each slot, kv [2, slots, kv_heads, 1, head_dim] at positions [slots, 1], and return the layer's buffer."""
        buffer = self._buffers[layer]
        return buffer.scatter_(3, positions[None, :, None, :, None].expand_as(kv), kv)

    def _seated(self) -> list[Row | None]:
        return [None if owner is None else owner() for owner in self._owners]

    def _release(self, keep: set[int]) -> None:
        """Empty all slots but those of the rows whose ids are in `keep`."""
        for slot, owner in enumerate(self._seated()):
            if owner is not None and id(owner) in keep:
                continue
            self._owners[slot] = None
            for number, view in enumerate(self._views[slot]):
                if owner is not None and owner.key_values(number).buffer is view:
                    owner.layers[number] = owner.key_values(number).copy(owner.length)

    def _take_in(self, row: Row, slot: int) -> None:
        """Move a row's keys and values into a slot, if they are not there."""
        for number, view in enumerate(self._views[slot]):
            buffer = row.key_values(number).buffer
            if buffer is not view:
                view[:, :, : row.length] = buffer[:, :, : row.length]
                # An infinite number that an earlier row left would count even at a masked position: 0 times infinity is NaN.
                view[:, :, row.length :] = 0
                row.layers[number] = KeyValues(view)
        self._owners[slot] = weakref.ref(row)


def fitting(length: int) -> int:
    """The capacity for rows of this length."""
    power = SMALLEST
    while power < length:
        power *= 2
    between = power * 3 // 4
    return between if SMALLEST < between >= length else power
