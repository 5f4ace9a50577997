"""The trainer's interface to what it trains on: batches, a loss for each token, and held-back text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tgen.executors.torch.transformer import Transformer

Ids = npt.NDArray[np.unsignedinteger[Any]]  # integers of 16 bits, or of 32 bits for a large vocabulary
Arrays = tuple[npt.NDArray[np.int64], ...]
# Which text is held back does not depend on the run's seed, so two runs on the same text can be compared.
SPLIT_SEED = 20_000


def predicted(arrays: Arrays) -> int:
    """The number of tokens that a batch predicts: all but the first of each row of its last array, without the padding of -1.

    Losses above zero cannot be counted instead, because a token of which the model is sure has a loss of exactly zero.
    """
    return int((arrays[-1][:, 1:] >= 0).sum())


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A batch of held-back text: its arrays, how many of its rows count, and how many bytes of text those rows predict."""

    arrays: Arrays
    rows: int
    size: int


class Objective(Protocol):
    """What a model learns: its batches, its losses, its held-back text, and the files for its folder."""

    model_type: str
    config: dict[str, Any]
    generation: dict[str, Any]

    def batch(self, number: int) -> Arrays:
        """The arrays of a batch, which depend only on the run's seed and the number, so that a resumed run gets the same batches.

        The last array holds the ids that are predicted from those before them, [rows, n + 1], padded with -1.
        """
        ...

    def losses(self, model: Transformer, *arrays: Tensor) -> Tensor:
        """Cross-entropy in nats of each token, [rows, n]; zero where there is nothing to predict."""
        ...

    def held_back(self, limit: int | None) -> Iterator[HeldBack]:
        """Validation batches of `limit` rows in all, spread evenly over the held-back text, or of all rows."""
        ...

    def opening(self) -> str:
        """The beginning of the held-back text, which samples continue; empty if that text has no words."""
        ...

    def describe(self) -> str:
        """The size of the training data, for people."""
        ...
