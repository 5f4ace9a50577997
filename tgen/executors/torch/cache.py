"""The KV cache: keys and values of what was already read, in buffers that are written in place. Knows no family and no text.

All rows share the slot axis. A block of rows of unlike lengths is padded on the left; what is padding, or was cut off again, is a
slot whose position is -1, and attention never looks at it. A row that joins later is laid down so that it ends where all others end:
then a step still writes one slot for all rows, and what has to be looked at is no wider than the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgen.spec.records import ModelSpec


class LayerCache:
    """One layer's keys and values, each [rows, kv_heads, capacity, head_dim]."""

    def __init__(self, shared: Cache, k: Tensor, v: Tensor) -> None:
        self.shared = shared
        self.k = k
        self.v = v

    def store(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write a block of n new slots; return views of all slots in use, [rows, kv_heads, used - first, head_dim]."""
        end = self.shared.used
        start = end - k.shape[2]
        self.k[:, :, start:end] = k
        self.v[:, :, start:end] = v
        first = self.shared.first
        return self.k[:, :, first:end], self.v[:, :, first:end]


@dataclass(slots=True)
class Source:
    """What an encoder read, as a decoder's layers look at it: positions [rows, m], and for each layer finished keys and values.

    `padded` says whether any position is padding. Keys and values are [rows, kv_heads, m, head_dim].
    """

    positions: Tensor
    padded: bool
    layers: list[tuple[Tensor, Tensor]]

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.positions.device)
        self.positions = self.positions.index_select(0, index)
        self.layers = [(k.index_select(0, index), v.index_select(0, index)) for k, v in self.layers]

    def admit(self, other: Source, rows: Sequence[int], places: Sequence[int]) -> None:
        """Put rows of another source at these places, those beyond the last row new; the narrower of the two is padded."""
        width = max(self.positions.shape[1], other.positions.shape[1])
        index = torch.tensor(rows, dtype=torch.int64, device=self.positions.device)
        put = torch.tensor(places, dtype=torch.int64, device=self.positions.device)
        count = max(len(self.positions), max(places) + 1)

        def merged(mine: Tensor, theirs: Tensor, empty: int) -> Tensor:
            """Both are [rows, ..., m, size]."""
            result = mine.new_full((count, *mine.shape[1:-2], width, mine.shape[-1]), empty)
            result[: len(mine), ..., width - mine.shape[-2] :, :] = mine
            result[put] = empty
            result[..., width - theirs.shape[-2] :, :].index_copy_(0, put, theirs.index_select(0, index))
            return result

        self.positions = merged(self.positions.unsqueeze(-1), other.positions.unsqueeze(-1), -1).squeeze(-1)
        pairs = zip(self.layers, other.layers, strict=True)
        self.layers = [(merged(k, other_k, 0), merged(v, other_v, 0)) for (k, v), (other_k, other_v) in pairs]
        self.padded = bool((self.positions < 0).any())


class Cache:
    """The cache of a whole stack for one batch of rows. Grows by doubling, so a step costs what it adds, not what is there."""

    def __init__(self, spec: ModelSpec, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        self.used = 0
        self.starts = [0] * rows  # the slot of each row's first key; those before it are padding
        self.gaps = False  # whether any slot in use may be padding or forgotten
        self.capacity = capacity
        self.positions = torch.full((rows, capacity), -1, dtype=torch.int64, device=device)
        self.layers = []
        for layer in spec.decoder.layers if spec.decoder else ():
            shape = (rows, layer.mixer.kv_heads, capacity, layer.mixer.head_dim)
            k, v = torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
            self.layers.append(LayerCache(self, k, v))

    @property
    def first(self) -> int:
        """The first slot that any row uses."""
        return min(self.starts)

    @property
    def keys(self) -> Tensor:
        """Positions of all slots in use, [rows, used - first]."""
        return self.positions[:, self.first : self.used]

    def reserve(self, positions: Tensor) -> None:
        """Take the next n slots for a block whose positions are [rows, n]; the layers then fill them."""
        length = positions.shape[1]
        if self.used + length > self.capacity:
            live = self.used - self.first
            # Slots that only rows long gone have used are room, too: what is left moves to the front.
            self._move(len(self.starts), self.capacity if 2 * (live + length) <= self.capacity else max(live + length, 2 * self.capacity))
        if length > 1 and not self.gaps:  # a block of one slot is never padding
            self.gaps = bool((positions < 0).any())
            if self.used == 0:
                self.starts = (positions < 0).sum(dim=1).tolist()
        self.positions[:, self.used : self.used + length] = positions
        self.used += length

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        if list(rows) == list(range(self.positions.shape[0])):
            return
        index = torch.tensor(rows, dtype=torch.int64, device=self.positions.device)
        self.positions = self.positions.index_select(0, index)
        self.starts = [self.starts[row] for row in rows]
        for layer in self.layers:
            layer.k, layer.v = layer.k.index_select(0, index), layer.v.index_select(0, index)

    def admit(self, other: Cache, rows: Sequence[int], places: Sequence[int]) -> None:
        """Put rows of another cache at these places, in the stead of what is there; places beyond the last row are new rows."""
        starts = [other.starts[row] for row in rows]
        width = other.used - min(starts)
        count = max(len(self.starts), max(places) + 1)
        if width > self.used or count > len(self.starts):
            self._move(count, max(self.capacity, width), end=max(width, self.used))
        index = torch.tensor(rows, dtype=torch.int64, device=self.positions.device)
        put = torch.tensor(places, dtype=torch.int64, device=self.positions.device)
        mine, theirs = slice(self.used - width, self.used), slice(other.used - width, other.used)
        self.positions.index_fill_(0, put, -1)
        self.positions[:, mine].index_copy_(0, put, other.positions[:, theirs].index_select(0, index))
        for layer, joining in zip(self.layers, other.layers, strict=True):
            layer.k[:, :, mine].index_copy_(0, put, joining.k[:, :, theirs].index_select(0, index))
            layer.v[:, :, mine].index_copy_(0, put, joining.v[:, :, theirs].index_select(0, index))
        for place, start in zip(places, starts, strict=True):
            self.starts[place] = self.used - other.used + start
        self.gaps = True

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget everything at position lengths[row] and after it, row by row."""
        limits = torch.tensor(lengths, dtype=torch.int64, device=self.positions.device)
        self.positions = self.positions.masked_fill(self.positions >= limits.unsqueeze(1), -1)
        self.gaps = self.gaps or len(set(lengths)) > 1
        taken = (self.positions >= 0).any(dim=0).nonzero()
        self.used = int(taken[-1]) + 1 if len(taken) else 0
        self.starts = [min(start, self.used) for start in self.starts]

    def stored(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the first row's first `length` positions, each [kv_heads, length, head_dim], for each layer."""
        slots = ((self.positions[0] >= 0) & (self.positions[0] < length)).nonzero()[:, 0]
        return [(layer.k[0, :, slots], layer.v[0, :, slots]) for layer in self.layers]

    def _move(self, rows: int, capacity: int, end: int | None = None) -> None:
        """The one place where the cache is copied: for more slots or more rows, what is in use moved to `end`, else to the front."""
        first, live = self.first, self.used - self.first
        end = live if end is None else end
        old, new = slice(first, self.used), slice(end - live, end)

        def moved(buffer: Tensor, axis: int, empty: int) -> Tensor:
            shape = list(buffer.shape)
            shape[0], shape[axis] = rows, capacity
            result = buffer.new_full(shape, empty)
            result[: len(buffer)].narrow(axis, new.start, live).copy_(buffer.narrow(axis, old.start, live))
            return result

        self.positions = moved(self.positions, 1, -1)
        for layer in self.layers:
            layer.k, layer.v = moved(layer.k, 2, 0), moved(layer.v, 2, 0)
        self.starts = [start - first + new.start for start in self.starts] + [end] * (rows - len(self.starts))
        self.capacity, self.used = capacity, end
