"""The KV cache: keys and values of what was already read, in buffers that are written in place. Knows no family and no text.

All rows share the slot axis. A block of rows of unlike lengths is padded on the left; what is padding, or was cut off again, is a
slot whose position is -1, and attention never looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgen.spec import ModelSpec


class LayerCache:
    """One layer's keys and values, each [rows, kv_heads, capacity, head_dim]."""

    def __init__(self, shared: Cache, k: Tensor, v: Tensor) -> None:
        self.shared = shared
        self.k = k
        self.v = v

    def store(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write a block of n new slots; return views of all slots in use, [rows, kv_heads, used, head_dim]."""
        end = self.shared.used
        start = end - k.shape[2]
        self.k[:, :, start:end] = k
        self.v[:, :, start:end] = v
        return self.k[:, :, :end], self.v[:, :, :end]


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


class Cache:
    """The cache of a whole stack for one batch of rows. Grows by doubling, so a step costs what it adds, not what is there."""

    def __init__(self, spec: ModelSpec, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        self.used = 0
        self.gaps = False  # whether any slot in use may be padding or forgotten
        self.capacity = capacity
        self.positions = torch.full((rows, capacity), -1, dtype=torch.int64, device=device)
        self.layers = []
        for layer in spec.decoder.layers if spec.decoder else ():
            shape = (rows, layer.attention.kv_heads, capacity, layer.attention.head_dim)
            k, v = torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
            self.layers.append(LayerCache(self, k, v))

    def reserve(self, positions: Tensor) -> None:
        """Take the next n slots for a block whose positions are [rows, n]; the layers then fill them."""
        start, end = self.used, self.used + positions.shape[1]
        if end > self.capacity:
            self._grow(max(end, 2 * self.capacity))
        if positions.shape[1] > 1 and not self.gaps:  # a block of one slot is never padding
            self.gaps = bool((positions < 0).any())
        self.positions[:, start:end] = positions
        self.used = end

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        if list(rows) == list(range(self.positions.shape[0])):
            return
        index = torch.tensor(rows, dtype=torch.int64, device=self.positions.device)
        self.positions = self.positions.index_select(0, index)
        for layer in self.layers:
            layer.k, layer.v = layer.k.index_select(0, index), layer.v.index_select(0, index)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget everything at position lengths[row] and after it, row by row."""
        limits = torch.tensor(lengths, dtype=torch.int64, device=self.positions.device)
        self.positions = self.positions.masked_fill(self.positions >= limits.unsqueeze(1), -1)
        self.gaps = self.gaps or len(set(lengths)) > 1
        taken = (self.positions >= 0).any(dim=0).nonzero()
        self.used = int(taken[-1]) + 1 if len(taken) else 0

    def stored(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the first row's first `length` positions, each [kv_heads, length, head_dim], for each layer."""
        slots = ((self.positions[0] >= 0) & (self.positions[0] < length)).nonzero()[:, 0]
        return [(layer.k[0, :, slots], layer.v[0, :, slots]) for layer in self.layers]

    def _grow(self, capacity: int) -> None:
        """Room for more slots: the one place where the cache is copied."""
        rows = self.positions.shape[0]
        positions = self.positions.new_full((rows, capacity), -1)
        positions[:, : self.used] = self.positions[:, : self.used]
        self.positions = positions
        for layer in self.layers:
            layer.k, layer.v = self._wider(layer.k, capacity), self._wider(layer.v, capacity)
        self.capacity = capacity

    def _wider(self, buffer: Tensor, capacity: int) -> Tensor:
        rows, heads, _, head_dim = buffer.shape
        wider = buffer.new_zeros((rows, heads, capacity, head_dim))
        wider[:, :, : self.used] = buffer[:, :, : self.used]
        return wider
