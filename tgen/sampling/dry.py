"""DRY ("don't repeat yourself"): a penalty on tokens that would prolong a repetition of an earlier part of the row.

There is no paper; the source is https://github.com/oobabooga/text-generation-webui/pull/5677. If the row's last n
tokens stood earlier in the row, the score of the token that followed them loses multiplier * base ** (n - allowed_length), provided that
n is at least allowed_length. No sequence reaches across a breaker.
"""

from __future__ import annotations

import copy
from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from tgen.arrays import Ids, Logits
from tgen.options import GenerationOptions
from tgen.sampling.penalties import LARGEST
from tgen.sampling.wording import Texts

# Earlier places are looked up by the row's last tokens, at most this many: more take more memory and tell little more.
LONGEST_KEY = 8


class Dry:
    """The penalty of one row. A step looks only at the places before which the row's last few tokens stood.

    A match shorter than `allowed_length` has no penalty, so `allowed_length` tokens are looked up at once. Any place found may belong to
    the longest match, so a step takes time for each of them; a text that goes round in circles has many.
    """

    def __init__(self, options: GenerationOptions, prompt: Sequence[int], breakers: Texts | None) -> None:
        self._options = options
        self._breakers = breakers
        self._tail = b""
        self._length = len(prompt)
        self._ids: Ids = np.zeros(2 * self._length + 64, np.intp)
        self._ids[: self._length] = prompt
        self._key = max(1, min(options.dry_allowed_length, LONGEST_KEY))
        # At each place, how many tokens before it are equal to the row's last ones; 0 where these are fewer than a key has.
        self._repeated: npt.NDArray[np.int32] = np.zeros(len(self._ids), np.int32)
        self._unbroken = 0
        for token in prompt:
            self._unbroken = 0 if self._breaks(token) else self._unbroken + 1
        repeated = np.minimum(np.array(_repeated(prompt), np.int32), self._unbroken)
        self._repeated[: self._length] = np.where(repeated >= self._key, repeated, 0)
        self._places: defaultdict[tuple[int, ...], array[int]] = defaultdict(_no_places)  # the places after each sequence of a key's length
        for end in range(self._key, self._length + 1):
            self._places[tuple(prompt[end - self._key : end])].append(end)
        self._active: Ids = self._repeated.nonzero()[0]  # the places before which something is repeated

    def apply(self, scores: Logits) -> Logits:
        """The scores [vocab] with the penalty, all finite; the input does not change."""
        options = self._options
        active, repeated = self._active, self._repeated[self._active]
        if options.dry_penalty_last_n >= 0:
            first = max(0, self._length - options.dry_penalty_last_n)
            repeated = np.minimum(repeated, active - first)
        long = repeated >= options.dry_allowed_length
        if not long.any():
            return scores
        places, repeated = active[long], repeated[long]
        order = repeated.argsort()  # so that of several penalties of a token, the largest is written last
        tokens, over = self._ids[places[order]], repeated[order] - options.dry_allowed_length
        scores = scores.copy()
        with np.errstate(over="ignore"):
            penalty = options.dry_multiplier * np.power(float(options.dry_base), over)
            scores[tokens] = (scores[tokens].astype(np.float64) - penalty).clip(-LARGEST, LARGEST)
        return scores

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
        count = self._length
        if count == len(self._ids):
            self._ids, self._repeated = (np.concatenate([old, np.zeros_like(old)]) for old in (self._ids, self._repeated))
        self._ids[count] = token
        self._length += 1
        self._unbroken = 0 if self._breaks(token) else self._unbroken + 1
        earlier = self._places[tuple(self._ids[max(0, self._length - self._key) : self._length].tolist())]
        places = np.array(earlier if self._unbroken >= self._key else (), np.intp)
        before = self._repeated[places - 1]
        self._repeated[self._active] = 0
        self._active = places
        self._repeated[places] = np.where(before, before + 1, self._key)
        if self._length >= self._key:
            earlier.append(self._length)

    def copy(self) -> Self:
        """An independent copy of the row's penalty."""
        copied = copy.copy(self)
        copied._ids, copied._repeated = self._ids.copy(), self._repeated.copy()
        copied._places = defaultdict(_no_places, {key: places[:] for key, places in self._places.items()})
        return copied

    def _breaks(self, token: int) -> bool:
        """Whether the next token ends every sequence; adds the token to the row's last bytes."""
        if self._breakers is None:
            return False
        breaks = self._breakers.completes(self._tail, token)
        self._tail = self._breakers.follow(self._tail, token)
        return breaks


def _no_places() -> array[int]:
    return array("q")


def _repeated(ids: Sequence[int]) -> list[int]:
    """At each place, how many ids before it are equal to the last ones: the Z-function of the reversed ids, in linear time."""
    backwards, count = list(ids)[::-1], len(ids)
    found, left, right = [0] * (count + 1), 0, 0
    for place in range(1, count):
        length = min(right - place, found[place - left]) if place < right else 0
        while place + length < count and backwards[length] == backwards[place + length]:
            length += 1
        found[place] = length
        if place + length > right:
            left, right = place, place + length
    return [found[count - place] for place in range(count)]
