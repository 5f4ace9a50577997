"""Biases and penalties. A bias makes one token more or less likely, a penalty all tokens that a row has already used.

The repetition penalty (arXiv:1909.05858) applies once to each distinct token of prompt and output; the presence and frequency penalties
count the output alone, as OpenAI defines them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Self

import numpy as np

from tgen.arrays import Ids, Logits, Values
from tgen.options import GenerationOptions
from tgen.sampling.wording import Wording

# Scores are clipped to this, just inside float32, because infinity minus infinity is NaN.
LARGEST = 3e38


class Penalties:
    """The biases and penalties of one row, which remembers the tokens it has used. A step costs the same however long the text is."""

    def __init__(self, options: GenerationOptions, prompt: Iterable[int], wording: Wording | None = None) -> None:
        self._options = options
        self._wording = wording
        self._seen = _Tally(prompt if options.repetition_penalty != 1 else ())
        self._written = _Tally()

    def apply(self, logits: Logits) -> Logits:
        """The logits with biases and penalties, all finite. The input does not change; it is the result if there are none."""
        options, seen, written = self._options, self._seen.ids, self._written.ids
        biased = self._wording.biased if self._wording is not None else seen[:0]
        if not (len(biased) or len(seen) or len(written)):
            return logits
        scores = logits.copy()
        with np.errstate(over="ignore"):
            if self._wording is not None and len(biased):
                scores[biased] = _clipped(scores.take(biased) + self._wording.biases)
            if len(seen):
                before = scores.take(seen).astype(np.float64)
                # A penalty multiplies a negative score and divides any other: above 1 that is the smaller result, below 1 the larger.
                choose = np.minimum if options.repetition_penalty > 1 else np.maximum
                scores[seen] = _clipped(choose(before * options.repetition_penalty, before / options.repetition_penalty))
            if len(written):
                penalty = options.presence_penalty + options.frequency_penalty * self._written.times
                scores[written] = _clipped(scores.take(written) - penalty)
        return scores

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
        if self._options.repetition_penalty != 1:
            self._seen.add(token)
        if self._options.presence_penalty or self._options.frequency_penalty:
            self._written.add(token)

    def copy(self) -> Self:
        """An independent copy of the penalties."""
        copied = copy.copy(self)
        copied._seen, copied._written = self._seen.copy(), self._written.copy()
        return copied


def _clipped(scores: Values) -> Logits:
    """The scores inside float32; the input changes."""
    np.minimum(scores, LARGEST, out=scores)
    return np.maximum(scores, -LARGEST, out=scores).astype(np.float32)


class _Tally:
    """Distinct tokens in the order they came, and how often each did, in arrays that grow by doubling."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        counts = Counter(tokens)
        self._places = {token: place for place, token in enumerate(counts)}
        self._ids: Ids = np.zeros(64 + len(counts), np.intp)
        self._times: Values = np.zeros(64 + len(counts))
        self._ids[: len(counts)] = list(counts)
        self._times[: len(counts)] = list(counts.values())

    @property
    def ids(self) -> Ids:
        return self._ids[: len(self._places)]

    @property
    def times(self) -> Values:
        return self._times[: len(self._places)]

    def add(self, token: int) -> None:
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids, self._times = (np.concatenate([array, np.zeros_like(array)]) for array in (self._ids, self._times))
        self._ids[place] = token
        self._times[place] += 1

    def copy(self) -> Self:
        copied = copy.copy(self)
        copied._places, copied._ids, copied._times = self._places.copy(), self._ids.copy(), self._times.copy()
        return copied
