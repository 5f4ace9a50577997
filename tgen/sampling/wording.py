"""The tokens that the texts in options stand for: tokens with a bias, banned texts, and texts that break a sequence."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from tgen.arrays import Ids, Values
from tgen.errors import UsageError
from tgen.options import GenerationOptions
from tgen.text.tokenizer import Tokenizer
from tgen.values import NO_BREAKERS, split_bias

# How many sets of texts stay ready: the lines of a batch mostly share a few.
KEPT = 16


class Texts:
    """Texts that a row may complete with its next token. Bytes count, so a text is found within a token, and across any tokens."""

    def __init__(self, texts: Sequence[str], tokens: Sequence[bytes], special: Collection[int] = ()) -> None:
        """`tokens[id]` is what an id adds to a text, nothing for special tokens; `special` are those whose own text is one of `texts`."""
        self._texts = [text.encode() for text in texts]
        self._tokens = tokens
        self._beginnings: dict[bytes, frozenset[int]] = {}
        self._inside = frozenset(special).union(
            token for token, spelled in enumerate(tokens) if any(text in spelled for text in self._texts)
        )
        self.reach = max(map(len, self._texts)) - 1  # how many bytes before a token matter

    def follow(self, tail: bytes, token: int) -> bytes:
        """The last bytes of a row after one more token."""
        return (tail + self._tokens[token])[-self.reach :] if self.reach else b""

    def completing(self, tail: bytes) -> frozenset[int]:
        """The tokens that complete a text after these last bytes of a row."""
        rests = {text[size:] for text in self._texts for size in range(1, len(text)) if tail.endswith(text[:size])}
        return self._inside.union(*map(self._beginning_with, rests)) if rests else self._inside

    def completes(self, tail: bytes, token: int) -> bool:
        """Whether a token completes a text after these last bytes of a row."""
        whole = tail + self._tokens[token]
        return token in self._inside or any(whole.find(text, max(0, len(tail) + 1 - len(text))) >= 0 for text in self._texts)

    def _beginning_with(self, rest: bytes) -> frozenset[int]:
        if rest not in self._beginnings:
            self._beginnings[rest] = frozenset(token for token, spelled in enumerate(self._tokens) if spelled.startswith(rest))
        return self._beginnings[rest]


@dataclass(frozen=True, slots=True)
class Wording:
    """The tokens of one request's options: biases [n] of ids [n], the texts that are banned, and those that break a sequence."""

    biased: Ids = field(default_factory=lambda: np.zeros(0, np.intp))
    biases: Values = field(default_factory=lambda: np.zeros(0))
    banned: Texts | None = None
    breakers: Texts | None = None


class Wordings:
    """Finds the tokens of a model for the words of options."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._texts = functools.lru_cache(KEPT)(self._find)

    def read(self, options: GenerationOptions) -> Wording:
        """The tokens that the options name. Raises UsageError for a text that is no single token, and where tokens have no known bytes."""
        biases: dict[int, float] = {}
        for text in options.logit_bias:
            token, bias = split_bias(text)
            biases[self._token(token)] = bias
        breakers = options.dry_sequence_breakers if options.dry_multiplier and options.dry_sequence_breakers != NO_BREAKERS else ()
        return Wording(
            np.fromiter(biases, np.intp, len(biases)),
            np.fromiter(biases.values(), np.float64, len(biases)),
            self._texts("--ban", tuple(options.ban)) if options.ban else None,
            self._texts("--dry-sequence-breakers", tuple(breakers)) if breakers else None,
        )

    def _token(self, named: int | str) -> int:
        """The id of a token that an option names by its id or its text."""
        ids = [named] if isinstance(named, int) else self._tokenizer.encode(named, special=False)
        if len(ids) != 1:
            pieces = ", ".join(f"{token} {self._tokenizer.piece(token)!r}" for token in ids[:8])
            raise UsageError(f"--logit-bias {named!r} is {len(ids)} tokens: {pieces}", "name one token, by its text or its id")
        if ids[0] >= self._vocab:
            raise UsageError(f"--logit-bias {named} is no id of the model, whose vocabulary ends at {self._vocab - 1}", "give another id")
        return ids[0]

    def _find(self, flag: str, texts: tuple[str, ...]) -> Texts:
        if not any(self._spelled):
            raise UsageError(f"{flag} does not know which bytes a token of this model is", "--logit-bias takes the ids of tokens")
        special = [self._tokenizer.special_id(text) for text in texts]
        return Texts(texts, self._spelled, [token for token in special if token is not None and token < self._vocab])

    @functools.cached_property
    def _spelled(self) -> list[bytes]:
        """What each id adds to a text; nothing for special tokens and ids without an entry."""
        tokenizer = self._tokenizer
        return [b"" if tokenizer.written(token) is None else tokenizer.bytes_of(token) or b"" for token in range(self._vocab)]
