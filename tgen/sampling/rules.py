"""What options and generation_config.json forbid or force: masks on logits that know the ids so far. Knows no model and no text.

The rules and their order are those of transformers, so that the same settings give the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.generation import GenerationConfig
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


def read_rules(config: GenerationConfig, options: GenerationOptions, end_tokens: frozenset[int], prompt: int = 0) -> Rules:
    """The rules that a folder sets, and what the options settle; `prompt` is how many ids stand before what is written, which the
    folder's min_length counts.
    """
    return Rules(
        max_new_tokens=options.max_new_tokens,
        end_tokens=tuple(sorted(end_tokens)),
        min_new_tokens=max(config.min_new_tokens, config.min_length - prompt),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        # An end token alone is no bad word: transformers leaves it out as well.
        bad_words=tuple(word for word in config.bad_words if word not in {(end,) for end in end_tokens}),
        # Only after a decoder's start token: transformers ignores it where a longer prompt is continued.
        forced_first=config.forced_first if prompt < 2 else None,
        forced_last=config.forced_last,
        suppressed=config.suppressed,
        suppressed_first=config.suppressed_first,
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
