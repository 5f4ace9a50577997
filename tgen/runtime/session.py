"""The torch executor behind the engine's `Session` protocol: ids and NumPy logits outside, tensors inside. Knows no text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tgen.model.cache import Cache
from tgen.model.transformer import Transformer
from tgen.runtime.placement import memory_errors


class TorchSession:
    """A batch of sequences and its KV cache."""

    def __init__(self, model: Transformer, capacity: int) -> None:
        """`capacity` is how many slots to set aside at first; the cache grows beyond it when needed."""
        self._model = model
        self._capacity = capacity
        self._cache: Cache | None = None
        self._lengths: list[int] = []

    @torch.inference_mode()
    def extend(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Read more ids, row by row; returns logits [rows, vocab] of each row's last position."""
        weight = self._model.embedding.weight
        with memory_errors(f"reading {sum(map(len, rows))} tokens"):
            if self._cache is None:
                self._cache = Cache(self._model.spec, len(rows), self._capacity, weight.device, weight.dtype)
                self._lengths = [0] * len(rows)
            if len(rows) != len(self._lengths) or not all(rows):
                raise ValueError(f"expected at least one id for each of {len(self._lengths)} rows")
            ids, positions = self._block(rows)
            hidden = self._model(ids.to(weight.device), None if positions is None else positions.to(weight.device), self._cache)
            logits = self._model.logits(hidden[:, -1])
        self._lengths = [length + len(row) for length, row in zip(self._lengths, rows, strict=True)]
        return logits.float().cpu().numpy()

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        if self._cache is not None:
            with memory_errors(f"copying the cache for {len(rows)} rows"):
                self._cache.select(rows)
            self._lengths = [self._lengths[row] for row in rows]

    @torch.inference_mode()
    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what row r read beyond its first lengths[r] ids."""
        if self._cache is not None:
            self._cache.truncate(lengths)
            self._lengths = [min(old, new) for old, new in zip(self._lengths, lengths, strict=True)]

    def _block(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids [rows, n], padded on the left, and positions [rows, n]; None for positions 0..n-1 in every row."""
        longest = max(map(len, rows))
        if not any(self._lengths) and all(len(row) == longest for row in rows):
            return torch.tensor(rows), None
        padding = [longest - len(row) for row in rows]
        ids = [[0] * gap + list(row) for gap, row in zip(padding, rows, strict=True)]
        positions = [
            [-1] * gap + list(range(length, length + len(row))) for gap, length, row in zip(padding, self._lengths, rows, strict=True)
        ]
        return torch.tensor(ids), torch.tensor(positions)
