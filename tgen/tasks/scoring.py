"""Measures how well a model predicts a given text: log-probability per token, perplexity, bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tgen.executors.session import Executor
from tgen.sampling.logits import log_softmax, require_finite
from tgen.text.tokenizer import Tokenizer

# Logits are computed for this many positions at a time: a vocabulary of 150,000 times a whole context would be gigabytes.
POSITIONS = 256
LogProbabilities = Callable[[Sequence[int]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the scored tokens of a text: log-probability in nats, number of tokens, and the bytes of text that they stand for."""

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


def scored_bytes(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """The bytes of a text that its ids but the first stand for: all of them, if the first is a start token that the tokenizer adds.

    A character that the first token only begins counts in full.
    """
    size, plain = len(text.encode()), tokenizer.encode(text, special=False)
    if list(ids[1 : len(plain) + 1]) == plain:
        return size
    first = tokenizer.decode([ids[0]], special=True)
    return size - len(first.encode()) if text.startswith(first) else size


def log_probabilities(executor: Executor, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """The natural logarithm of each id's probability given the ids before it, [n - 1]: all ids but the first."""
    session = executor.open()
    session.admit([None])
    found: list[float] = []
    for start in range(0, len(ids) - 1, POSITIONS):
        wanted = ids[start + 1 : start + 1 + POSITIONS]
        logits = session.extend([ids[start : start + len(wanted)]], [len(wanted)])
        with np.errstate(invalid="ignore"):  # the caller says where a number is not finite
            found += [float(log_softmax(row)[token]) for row, token in zip(logits, wanted, strict=True)]
    return np.array(found, dtype=np.float32)


def windowed(ids: Sequence[int], context: int, read: LogProbabilities) -> Iterator[npt.NDArray[np.float32]]:
    """Log-probabilities of every id but the first, in consecutive parts.

    A text longer than the context is read in windows that overlap by half, so that all ids but the first few are predicted from at least
    half a context. Raises NumericalError for one that is not finite.
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
