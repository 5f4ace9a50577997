"""What options and generation_config.json forbid or force: masks on logits that know the ids so far. Knows no model and no text.

The rules and their order are those of transformers, so that the same settings give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tgen.errors import CheckpointError
from tgen.options import GenerationOptions

Scores = TypeVar("Scores", npt.NDArray[np.float32], npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens may not, or must, come next. `max_new_tokens` is when a forced end token is due."""

    max_new_tokens: int
    end_tokens: tuple[int, ...] = ()
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    forced_first: int | None = None
    forced_last: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to apply."""
        return self == Rules(self.max_new_tokens, self.end_tokens)

    def apply(self, logits: Scores, ids: Sequence[int], new: int) -> Scores:
        """Logits [vocab] with what may not come next at -inf. `ids` are all ids so far, the last `new` of them written here.

        Raises CheckpointError if nothing is left.
        """
        forbidden: set[int] = set()
        if self.no_repeat_ngram_size:
            forbidden |= _repeats(ids, self.no_repeat_ngram_size)
        for word in self.bad_words:
            if len(word) == 1 or tuple(ids[-(len(word) - 1) :]) == word[:-1]:
                forbidden.add(word[-1])
        if new < self.min_new_tokens:
            forbidden |= set(self.end_tokens)
        forced: tuple[int, ...] = ()
        if self.forced_first is not None and new == 0:
            forced = (self.forced_first,)
        elif self.forced_last and new == self.max_new_tokens - 1:
            forced = self.forced_last
        if forced:
            # A forced token wins over every other rule, and with certainty.
            logits = np.full_like(logits, -np.inf)
            logits[list(forced)] = 0
            return logits
        forbidden |= set(self.suppressed)
        if new == 0:
            forbidden |= set(self.suppressed_first)
        if forbidden:
            logits = logits.copy()
            logits[list(forbidden)] = -np.inf
            if logits.max() == -np.inf:
                raise CheckpointError(f"generation_config.json forbids every token at step {new}", "look at its suppress_tokens")
        return logits


def read_rules(generation: Mapping[str, Any], options: GenerationOptions, end_tokens: frozenset[int], vocab: int, prompt: int = 0) -> Rules:
    """The rules in a generation_config.json, and what the options settle; `prompt` is how many ids stand before what is written, which
    its min_length counts.

    Raises CheckpointError for a value that cannot be meant.
    """

    def senseless(key: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(f"generation_config.json: {key} = {value!r} {expected}", "correct it or leave it out")

    def ids(key: str, value: Any) -> tuple[int, ...]:
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab for i in values):
            raise senseless(key, value, f"does not name ids below the vocabulary's {vocab}")
        return tuple(values)

    def count(key: str) -> int:
        value = generation.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise senseless(key, value, "is not a whole number, 0 or more")
        return value

    words = generation.get("bad_words_ids") or []
    if not isinstance(words, list):
        raise senseless("bad_words_ids", words, "is not a list of lists of ids")
    bad = tuple(word for word in (ids("bad_words_ids", word) for word in words) if word)
    first = ids("forced_bos_token_id", generation.get("forced_bos_token_id"))
    return Rules(
        max_new_tokens=options.max_new_tokens,
        end_tokens=tuple(sorted(end_tokens)),
        min_new_tokens=max(count("min_new_tokens"), count("min_length") - prompt),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        # An end token alone is no bad word: transformers leaves it out as well.
        bad_words=tuple(word for word in bad if word not in {(end,) for end in end_tokens}),
        # Only after a decoder's start token: transformers ignores it where a longer prompt is continued.
        forced_first=first[0] if first and prompt < 2 else None,
        forced_last=ids("forced_eos_token_id", generation.get("forced_eos_token_id")),
        suppressed=ids("suppress_tokens", generation.get("suppress_tokens")),
        suppressed_first=ids("begin_suppress_tokens", generation.get("begin_suppress_tokens")),
    )


def _repeats(ids: Sequence[int], size: int) -> set[int]:
    """The tokens that would complete a sequence of `size` ids for a second time."""
    if len(ids) + 1 < size:
        return set()
    if size == 1:
        return set(ids)
    start = tuple(ids[len(ids) - size + 1 :])
    places = (i for i in range(len(ids) - size + 1) if ids[i] == start[0])  # few, and only they are worth a closer look
    return {ids[i + size - 1] for i in places if tuple(ids[i : i + size - 1]) == start}
