"""Rules: a mask on the scores for tokens that options and generation_config.json forbid or force, given the ids so far.

The rules and their order follow transformers, so that the same settings give the same text.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Self

import numpy as np

from tgen.arrays import Logits
from tgen.checkpoint.generation import GenerationConfig
from tgen.errors import CheckpointError, TgenError, UsageError
from tgen.options import GenerationOptions
from tgen.sampling.wording import Texts

# What stands for a sequence of ids, and the tokens that have followed each one.
Name = tuple[int, ...]
Followers = Mapping[Name, Set[int]]


class Sequences:
    """Names for the last `span` ids of a growing text: two sequences have the same name exactly if they are equal.

    A sequence's name is the number of the pair of its two halves' names. So each token takes a time that grows with the logarithm of the
    span, however long the text is.
    """

    def __init__(self, span: int, ids: Sequence[int] = ()) -> None:
        self._span = span
        self._pairs: dict[tuple[int, int, int], int] = {}  # level, left and right half: their name
        self._levels: list[list[int]] = [[] for _ in range(max(1, span.bit_length()))]  # names of 2 ** level ids, by their place
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Continue the text."""
        self._levels[0].append(token)
        for level, halves in enumerate(self._levels[:-1]):
            width = 2**level
            if len(halves) <= width:
                return
            name = self._pairs.setdefault((level, halves[-1 - width], halves[-1]), len(self._pairs))
            self._levels[level + 1].append(name)

    def last(self) -> Name | None:
        """The name of the last `span` ids; None if there are fewer."""
        if len(self._levels[0]) < self._span:
            return None
        # Where the span is no power of two, two overlapping sequences make it up.
        longest = self._levels[-1]
        return (longest[-1], longest[2 ** (len(self._levels) - 1) - 1 - self._span]) if self._span else ()

    def another(self, ids: Sequence[int]) -> Self:
        """Another text, in which a sequence has the same name as in this one."""
        other = copy.copy(self)
        other._levels = [[] for _ in self._levels]
        for token in ids:
            other.add(token)
        return other

    def copy(self) -> Self:
        """An independent copy of the text."""
        copied = copy.copy(self)
        copied._levels = [names.copy() for names in self._levels]
        return copied


@dataclass(frozen=True, slots=True)
class Repeats:
    """The tokens that have followed each sequence of `size` - 1 ids in a text."""

    sequences: Sequences
    followers: Followers


def find_repeats(ids: Sequence[int], size: int) -> Repeats:
    """What has followed each sequence of `size` - 1 ids."""
    sequences, found = Sequences(size - 1), dict[Name, set[int]]()
    for token in ids:
        name = sequences.last()
        if name is not None:
            found.setdefault(name, set()).add(token)
        sequences.add(token)
    return Repeats(sequences, found)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens may not or must come next. A `forced_last` token is the last of `max_new_tokens`.

    No sequence among the `source_repeats` may come. `ngram_asked` says that an option, not generation_config.json, settled
    `no_repeat_ngram_size`. No `banned` text is written.
    """

    max_new_tokens: int
    end_tokens: tuple[int, ...] = ()
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    forced_first: int | None = None
    forced_last: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    ngram_asked: bool = False
    source_repeats: Repeats | None = None
    banned: Texts | None = None

    @property
    def empty(self) -> bool:
        """Whether no rule is set."""
        return self == Rules(self.max_new_tokens, self.end_tokens, ngram_asked=self.ngram_asked)

    def masked(
        self,
        scores: Logits,
        last: Sequence[int],
        new: int,
        *repeats: Collection[int],
        source_repeats: Collection[int] = (),
        tail: bytes = b"",
    ) -> Logits:
        """Scores [vocab] with -inf for tokens that may not come next. Raises TgenError if every token is forbidden.

        `last` are the last few ids of the row, in which `new` ids were written so far. `repeats` are tokens that would repeat a sequence of
        the row, `source_repeats` one of the source. `tail` are the last bytes of what was written.
        """
        forced: tuple[int, ...] = ()
        if self.forced_first is not None and new == 0:
            forced = (self.forced_first,)
        elif self.forced_last and new == self.max_new_tokens - 1:
            forced = self.forced_last
        if forced:
            # A forced token wins over every other rule, and has probability 1.
            scores = np.full_like(scores, -np.inf)
            scores[list(forced)] = 0
            return scores
        forbidden = [(name, tokens) for name, tokens in self._forbidden(last, new, repeats, source_repeats, tail) if tokens]
        if forbidden:
            scores = scores.copy()
            for _, tokens in forbidden:
                scores[np.fromiter(tokens, np.intp, len(tokens))] = -np.inf
            if scores.max() == -np.inf:
                alone = [name for name, tokens in forbidden if len(set(tokens)) == len(scores)]
                raise self._nothing_left(alone[:1] or list(dict.fromkeys(name for name, _ in forbidden)), new)
        return scores

    def _forbidden(
        self, last: Sequence[int], new: int, repeats: Sequence[Collection[int]], source_repeats: Collection[int], tail: bytes
    ) -> list[tuple[str, Collection[int]]]:
        """The tokens that each rule forbids, by its option or its name in generation_config.json."""
        ended = [word[-1] for word in self.bad_words if len(word) == 1 or tuple(last[1 - len(word) :]) == word[:-1]]
        return [
            *(("no_repeat_ngram_size", tokens) for tokens in repeats),
            ("encoder_no_repeat_ngram_size", source_repeats),
            ("bad_words_ids", ended),
            ("--ban", () if self.banned is None else self.banned.completing(tail)),
            ("min_length (or min_new_tokens)", self.end_tokens if new < self.min_new_tokens else ()),
            ("suppress_tokens", self.suppressed),
            ("begin_suppress_tokens", self.suppressed_first if new == 0 else ()),
        ]

    def _nothing_left(self, names: list[str], new: int) -> TgenError:
        """The error for rules that together forbid every token."""
        asked = {"--ban": "--ban"}
        if self.ngram_asked:
            asked["no_repeat_ngram_size"] = f"--no-repeat-ngram-size {self.no_repeat_ngram_size}"
        options = " and ".join(asked[name] for name in names if name in asked)
        keys = " and ".join(name for name in names if name not in asked)
        verb = "forbids" if len(names) == 1 else "together forbid"
        if not options:
            return CheckpointError(f"generation_config.json: {keys} {verb} every token at step {new}", "correct it or leave it out")
        both = f"{options} and {keys} of generation_config.json" if keys else options
        hint = "ban fewer texts" if "--ban" in names else "give a larger size, or 0, which switches this rule off"
        return UsageError(f"{both} {verb} every token at step {new}", hint)


class RowRules:
    """Applies rules to one row. It remembers the tokens after each sequence, so that a step costs the same however long the text is."""

    def __init__(self, rules: Rules, prompt: Sequence[int]) -> None:
        self._rules = rules
        # The followers in the prompt, which copies share, and those in the text written since.
        self._prompt: Followers = {}
        self._written: dict[Name, Set[int]] = {}
        self._sequences, self._source_sequences = None, None
        if rules.no_repeat_ngram_size:
            repeats = find_repeats(prompt, rules.no_repeat_ngram_size)
            self._sequences, self._prompt = repeats.sequences, repeats.followers
        if rules.source_repeats is not None:
            self._source_sequences = rules.source_repeats.sequences.another(prompt)
        # Only bad words look back at ids: the longest of them needs this many.
        self._reach = max([1, *(len(word) - 1 for word in rules.bad_words)])
        self._last = tuple(prompt[-self._reach :])
        self._new = 0
        self._tail = b""

    def apply(self, scores: Logits) -> Logits:
        """Scores [vocab] with -inf for tokens that may not come next. Raises TgenError if every token is forbidden."""
        name = None if self._sequences is None else self._sequences.last()
        repeats = [] if name is None else [followers[name] for followers in (self._prompt, self._written) if name in followers]
        source: Collection[int] = ()
        if self._rules.source_repeats is not None and self._source_sequences is not None:
            name = self._source_sequences.last()
            source = () if name is None else self._rules.source_repeats.followers.get(name, ())
        return self._rules.masked(scores, self._last, self._new, *repeats, source_repeats=source, tail=self._tail)

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
        if self._sequences is not None:
            name = self._sequences.last()
            if name is not None:
                self._written[name] = self._written.get(name, frozenset()) | {token}
            self._sequences.add(token)
        if self._source_sequences is not None:
            self._source_sequences.add(token)
        self._last = (*self._last, token)[-self._reach :]
        self._new += 1
        if self._rules.banned is not None:
            self._tail = self._rules.banned.follow(self._tail, token)

    def copy(self) -> Self:
        """An independent copy of the row's rules."""
        copied = copy.copy(self)
        copied._written = self._written.copy()
        copied._sequences = None if self._sequences is None else self._sequences.copy()
        copied._source_sequences = None if self._source_sequences is None else self._source_sequences.copy()
        return copied


def read_rules(
    config: GenerationConfig,
    options: GenerationOptions,
    end_tokens: frozenset[int],
    prompt: int = 0,
    source: Sequence[int] = (),
    banned: Texts | None = None,
) -> Rules:
    """The rules that a folder and the options set. `prompt` is the number of ids before the text that will be written: min_length counts
    them. `source` are the ids that an encoder reads, or those of the prompt.
    """
    return Rules(
        max_new_tokens=options.max_new_tokens,
        end_tokens=tuple(sorted(end_tokens)),
        min_new_tokens=max(options.min_new_tokens, config.min_length - prompt),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        # An end token alone is no bad word: transformers leaves it out as well.
        bad_words=tuple(word for word in config.bad_words if word not in {(end,) for end in end_tokens}),
        # A first token is forced only after a decoder's start token: transformers ignores it where a longer prompt is continued.
        forced_first=config.forced_first if prompt < 2 else None,
        forced_last=config.forced_last,
        suppressed=config.suppressed,
        suppressed_first=config.suppressed_first,
        source_repeats=find_repeats(source, config.source_ngram_size) if config.source_ngram_size else None,
        ngram_asked=options.no_repeat_ngram_size != config.options.get("no_repeat_ngram_size"),
        banned=banned,
    )
