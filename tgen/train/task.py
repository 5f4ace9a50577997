"""What a run learns, as the loop sees it: batches, a loss for each token, and text held back. Knows no files and no optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tgen.executors.torch.transformer import Transformer

Arrays = tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A batch of held-back text: its arrays, how many of the rows count, and the bytes of text that these predict."""

    arrays: Arrays
    rows: int
    size: int


class Task(Protocol):
    """Something to learn."""

    model_type: str
    config: dict[str, Any]
    generation: dict[str, Any]

    def batch(self, number: int) -> Arrays:
        """The arrays of a batch, a function of the run's seed and its number alone."""
        ...

    def losses(self, model: Transformer, *arrays: Tensor) -> Tensor:
        """Cross-entropy in nats of each token, [rows, n]; zero where there is nothing to predict."""
        ...

    def held_back(self, limit: int | None) -> Iterator[Held]:
        """Validation batches; `limit` is how many rows to look at, spread evenly, None is all."""
        ...

    def describe(self) -> str:
        """How much there is to learn from, for people."""
        ...
