"""How a vocabulary spells a text: the bytes of each token, and the fewest tokens for a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tgen.errors import UsageError
from tgen.text.detokenizer import Detokenizer

if TYPE_CHECKING:
    from tgen.text.tokenizer import Tokenizer

# Longer tokens exist (runs of spaces, rules of dashes), but looking for them would cost more than they save.
LONGEST = 32
UNSPELLABLE = 1 << 40


class Spelling:
    """The bytes of every token, and the tokens that spell given bytes."""

    def __init__(self, tokens: Sequence[bytes], start_loses_space: Callable[[Sequence[int]], bool] = lambda _: False) -> None:
        """`tokens[id]` is what the id adds to a text: nothing for special tokens and for ids without an entry."""
        self.tokens = tokens
        self.loses_space = start_loses_space
        self._ids: dict[bytes, int] = {}
        for token, text in enumerate(tokens):
            if text and len(text) <= LONGEST:
                self._ids.setdefault(text, token)
        self._lengths = sorted({len(text) for text in self._ids})
        self.singles = frozenset(text[0] for text in self._ids if len(text) == 1)

    def costs(self, text: bytes, known: Sequence[int] = (0,)) -> list[int]:
        """For each suffix of `text` the fewest tokens that spell it, [len(text) + 1]; `known` are those of its last suffixes.

        UNSPELLABLE or more where nothing spells it.
        """
        total = len(text)
        costs = [UNSPELLABLE] * (total + 1 - len(known)) + list(known)
        for start in range(total - len(known), -1, -1):
            best = UNSPELLABLE
            for length in self._lengths:
                if start + length > total:
                    break
                if costs[start + length] < best and text[start : start + length] in self._ids:
                    best = costs[start + length]
            costs[start] = min(best + 1, UNSPELLABLE)
        return costs

    def first(self, text: bytes, costs: Sequence[int]) -> int:
        """The first of the fewest tokens that spell a text, the longest where several will do."""
        for length in reversed(self._lengths):
            if length <= len(text) and costs[length] == costs[0] - 1 and text[:length] in self._ids:
                return self._ids[text[:length]]
        raise ValueError(f"no token spells {text!r}")


def read_spelling(tokenizer: Tokenizer, vocab: int) -> Spelling:
    """How a model's tokenizer spells. Raises UsageError for one that does not say which bytes a token is."""
    if not hasattr(tokenizer.library, "decoder"):
        raise UsageError(
            "constrained output needs a tokenizer.json, and this model has none",
            "save one with transformers: AutoTokenizer...save_pretrained(folder)",
        )
    spelled = tokenizer.token_bytes
    if spelled is None:
        raise UsageError(
            f"constrained output does not know which bytes a token is: this tokenizer's decoder is {_kinds(tokenizer.decoder)}",
            "it knows ByteLevel, Metaspace, and Replace with ByteFallback",
        )
    tokens = [b"" if (piece := tokenizer.written(token)) is None else spelled.spell(piece) for token in range(vocab)]
    spaced = [token for token, text in enumerate(tokens) if len(text) > 1 and text[:1] == b" " and text[1:].isalpha()]

    def loses_space(prompt: Sequence[int]) -> bool:
        """Whether a text after this prompt loses the space that it starts with: SentencePiece puts one before every text."""
        return bool(spaced) and not Detokenizer(tokenizer, prompt).feed(spaced[0]).startswith(" ")

    return Spelling(tokens, loses_space)


def _kinds(decoder: dict[str, Any] | None) -> str:
    """The types of a decoder's steps."""
    return "none" if decoder is None else ", ".join(str(step["type"]) for step in decoder.get("decoders", [decoder]))
