"""The torch executor behind the engine's `Session` protocol: ids and NumPy logits outside, tensors inside. Knows no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tgen.executors.torch.cache import Cache, Source
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.transformer import Transformer


class TorchSession:
    """A batch of sequences and its KV cache; with `sources`, a decoder's answers to texts that are encoded once, when it opens."""

    def __init__(self, model: Transformer, capacity: int, sources: Sequence[Sequence[int]] | None = None) -> None:
        """`capacity` is how many slots to set aside at first; the cache grows beyond it when needed."""
        self._model = model
        self._capacity = capacity
        self._cache: Cache | None = None
        self._source: Source | None = None
        self._lengths: list[int] = []
        self._texts: list[int] = []
        if sources is not None:
            self._open(len(sources))
            self._source = self._read_source(sources)

    @torch.inference_mode()
    def extend(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Read more ids, row by row; returns logits [rows, vocab] of each row's last position."""
        with memory_errors(f"reading {sum(map(len, rows))} tokens"):
            cache = self._cache or self._open(len(rows))
            if len(rows) != len(self._lengths) or not all(rows):
                raise ValueError(f"expected at least one id for each of {len(self._lengths)} rows")
            ids, positions = left_padded(rows, self._lengths, self._model.embedding.weight.device)
            hidden = self._model(ids, positions, cache, self._source)
            logits = self._model.logits(hidden[:, -1])
        self._lengths = [length + len(row) for length, row in zip(self._lengths, rows, strict=True)]
        return logits.float().cpu().numpy()

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        if self._cache is not None:
            with memory_errors(f"copying the cache for {len(rows)} rows"):
                self._cache.select(rows)
                # Beams of one text all look at the same source: mostly nothing moves.
                texts = [self._texts[row] for row in rows]
                if self._source is not None and texts != self._texts:
                    self._source.select(rows)
                self._texts = texts
            self._lengths = [self._lengths[row] for row in rows]

    def admit(self, other: TorchSession, rows: Sequence[int], places: Sequence[int]) -> None:
        """Put rows of another session of the same model at these places, in the stead of what is there or after the last row."""
        if self._cache is None or other._cache is None:
            raise ValueError("rows join only where both sessions have read something")
        with memory_errors(f"a cache for {len(rows)} more rows"), torch.inference_mode():
            self._cache.admit(other._cache, rows, places)
            if self._source is not None and other._source is not None:
                self._source.admit(other._source, rows, places)
        missing = [0] * (self._cache.positions.shape[0] - len(self._lengths))
        self._lengths, self._texts = self._lengths + missing, self._texts + missing
        unseen = max(self._texts) + 1
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            self._lengths[place], self._texts[place] = other._lengths[row], unseen + number

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what row r read beyond its first lengths[r] ids."""
        if self._cache is not None:
            self._cache.truncate(lengths)
            self._lengths = [min(old, new) for old, new in zip(self._lengths, lengths, strict=True)]

    @torch.inference_mode()
    def state(self, length: int) -> dict[str, npt.NDArray[Any]]:
        """The first row's keys and values of its first `length` ids, by layer; bfloat16, which NumPy lacks, as uint16."""
        layers = self._cache.stored(length) if self._cache is not None else []
        return {f"{number}.{name}": _array(tensor) for number, both in enumerate(layers) for name, tensor in zip("kv", both, strict=True)}

    @torch.inference_mode()
    def restore(self, length: int, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Begin with one row that has read as many ids. Raises ValueError for a state that does not fit them or the model."""
        with memory_errors(f"restoring {length} tokens"):
            cache = self._open(1)
            layers = {f"{number}.{name}": (layer, name) for number, layer in enumerate(cache.layers) for name in "kv"}
            # The shapes come first: what a file says of its length must not set memory aside.
            wanted = {name: _layout(getattr(layer, half), length) for name, (layer, half) in layers.items()}
            if not length or {name: (array.dtype, array.shape) for name, array in state.items()} != wanted:
                raise ValueError("the state is that of another model or number format")
            cache.reserve(torch.arange(length, device=cache.positions.device).unsqueeze(0))
            for name, (layer, half) in layers.items():
                place, array = getattr(layer, half)[0, :, :length], torch.from_numpy(state[name])
                place.copy_(array.view(torch.bfloat16) if place.dtype == torch.bfloat16 else array)
        self._lengths = [length]

    def _open(self, rows: int) -> Cache:
        weight = self._model.embedding.weight
        self._cache = Cache(self._model.spec, rows, self._capacity, weight.device, weight.dtype)
        self._lengths = [0] * rows
        self._texts = list(range(rows))
        return self._cache

    @torch.inference_mode()
    def _read_source(self, sources: Sequence[Sequence[int]]) -> Source:
        if not all(sources):
            raise ValueError("a source text needs at least one id")
        with memory_errors(f"reading {sum(map(len, sources))} tokens"):
            return self._model.read_source(*left_padded(sources, [0] * len(sources), self._model.embedding.weight.device))


def _layout(buffer: torch.Tensor, length: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Number format and shape of one row's first `length` slots of a buffer [rows, kv_heads, capacity, head_dim], as `_array` has them."""
    return _array(buffer[:0]).dtype, (buffer.shape[1], length, buffer.shape[3])


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A tensor as NumPy can hold it, without a number changed."""
    array: npt.NDArray[Any] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).contiguous().cpu().numpy()
    return array


def left_padded(rows: Sequence[Sequence[int]], lengths: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [rows, n], padded on the left, and positions [rows, n] that go on after `lengths`; None for positions 0..n-1 in every row."""
    longest = max(map(len, rows))
    if not any(lengths) and all(len(row) == longest for row in rows):
        return torch.tensor(rows, device=device), None
    gaps = [longest - len(row) for row in rows]
    ids = [[0] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    positions = [[-1] * gap + list(range(length, length + len(row))) for gap, length, row in zip(gaps, lengths, rows, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(positions, device=device)
