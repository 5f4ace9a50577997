"""How well a model predicts a given text: log-probability per token, perplexity, bits per byte. Knows ids and numbers, no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tgen.sampling.logits import require_finite

LogProbabilities = Callable[[Sequence[int]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over a text: its log-probability in nats, the tokens that were scored, and its size in bytes."""

    log_probability: float
    tokens: int
    size: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability per token; depends on the vocabulary."""
        return math.exp(min(-self.log_probability / self.tokens, 700.0)) if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Negative log-probability in bits over bytes of text; compares across vocabularies."""
        return -self.log_probability / math.log(2) / self.size if self.size else math.nan


def windowed(ids: Sequence[int], context: int, read: LogProbabilities) -> Iterator[npt.NDArray[np.float32]]:
    """Log-probabilities of every id but the first, in parts that follow one another.

    A text longer than the context is read in windows that overlap by half, so that each id but those at the very start is predicted from
    at least half a context. Raises NumericalError for one that is not finite.
    """
    scored = 1
    start = 0
    while scored < len(ids):
        window = ids[start : start + context + 1]  # the last one is predicted, not read
        part = read(window)[scored - start - 1 :]
        require_finite(part, f"among tokens {scored} to {start + len(window) - 1}")
        yield part
        scored = start + len(window)
        start = scored - max(1, context // 2)
