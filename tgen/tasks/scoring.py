"""Measures how well a model predicts a given text: log-probability per token, perplexity, bits per byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tgen.executors.session import Executor
from tgen.sampling.logits import log_softmax, require_finite
from tgen.text.tokenizer import Tokenizer

# Logits are computed for this many positions at a time: a vocabulary of 150,000 times a whole context would be gigabytes.
POSITIONS = 256
LogProbabilities = Callable[[Sequence[int]], npt.NDArray[np.float32]]


def scored_bytes(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """The number of bytes of a text for which all its ids but the first stand: all bytes, if the first id is an added start token.

    A character that the first token only begins counts in full.
    """
    size, plain = len(text.encode()), tokenizer.encode(text, special=False)
    if list(ids[1 : len(plain) + 1]) == plain:
        return size
    first = tokenizer.decode([ids[0]], special=True)
    return size - len(first.encode()) if text.startswith(first) else size


def log_probabilities(executor: Executor, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """The natural logarithm of each id's probability given the ids before it, [n - 1]: all ids but the first."""
    return np.array([number for part in probability_parts(executor, ids) for number in part], dtype=np.float32)


def probability_parts(executor: Executor, ids: Sequence[int]) -> Iterator[list[float]]:
    """The same in consecutive parts, each of which takes one pass."""
    session = executor.open()
    session.admit([None])
    for start in range(0, len(ids) - 1, POSITIONS):
        wanted = ids[start + 1 : start + 1 + POSITIONS]
        logits = session.extend([ids[start : start + len(wanted)]], [len(wanted)])
        with np.errstate(invalid="ignore"):  # the caller says where a number is not finite
            part = [float(log_softmax(row)[token]) for row, token in zip(logits, wanted, strict=True)]
        yield part


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
