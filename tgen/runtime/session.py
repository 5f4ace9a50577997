"""The torch executor behind the engine's `Session` protocol: ids and NumPy logits outside, tensors inside. Knows no text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tgen.model.cache import Cache, Source
from tgen.model.transformer import Transformer
from tgen.runtime.placement import memory_errors


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

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what row r read beyond its first lengths[r] ids."""
        if self._cache is not None:
            self._cache.truncate(lengths)
            self._lengths = [min(old, new) for old, new in zip(self._lengths, lengths, strict=True)]

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


def left_padded(rows: Sequence[Sequence[int]], lengths: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [rows, n], padded on the left, and positions [rows, n] that go on after `lengths`; None for positions 0..n-1 in every row."""
    longest = max(map(len, rows))
    if not any(lengths) and all(len(row) == longest for row in rows):
        return torch.tensor(rows, device=device), None
    gaps = [longest - len(row) for row in rows]
    ids = [[0] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    positions = [[-1] * gap + list(range(length, length + len(row))) for gap, length, row in zip(gaps, lengths, rows, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(positions, device=device)
