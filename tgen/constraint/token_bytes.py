"""What each token of a vocabulary adds to a text, in bytes, and the fewest tokens for a text. Knows no model and no grammar."""

from __future__ import annotations

import json
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
    """The bytes of every token, and back."""

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
    library: Any = tokenizer.library
    if not hasattr(library, "get_added_tokens_decoder"):
        raise UsageError(
            "constrained output needs a tokenizer.json, and this model has none",
            "save one with transformers: AutoTokenizer...save_pretrained(folder)",
        )
    spell = _speller(json.loads(library.decoder.__getstate__()) if library.decoder else {"type": None})
    special = {token for token, entry in library.get_added_tokens_decoder().items() if entry.special}
    tokens = [b""] * vocab
    for piece, token in library.get_vocab(with_added_tokens=True).items():
        if token not in special and token < vocab:
            tokens[token] = spell(piece)
    spaced = [token for token, text in enumerate(tokens) if len(text) > 1 and text[:1] == b" " and text[1:].isalpha()]

    def loses_space(prompt: Sequence[int]) -> bool:
        """Whether a text after this prompt loses the space that it starts with: SentencePiece puts one before every text."""
        return bool(spaced) and not Detokenizer(tokenizer, prompt).feed(spaced[0]).startswith(" ")

    return Spelling(tokens, loses_space)


def _speller(decoder: dict[str, Any]) -> Callable[[str], bytes]:
    """From a vocabulary's entry to bytes, as the decoder of a tokenizer.json does it. Raises UsageError for a kind that is not known."""
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    fused = next((place for place, kind in enumerate(kinds) if kind in ("Fuse", "ByteLevel")), len(kinds))
    # Fuse and ByteLevel join the pieces. A Strip after them takes from the start of the whole text, which `loses_space` sees.
    if not steps or any(kind == "Strip" for kind in kinds[:fused]) or set(kinds) - {*_STEPS, "Strip", "Fuse"}:
        raise UsageError(
            f"constrained output does not know which bytes a token is: this tokenizer's decoder is {', '.join(map(str, kinds))}",
            "it knows ByteLevel, Metaspace, and Replace with ByteFallback",
        )
    steps = [step for step in steps if step["type"] in _STEPS]

    def spell(piece: str) -> bytes:
        text: str | bytes = piece
        for step in steps:
            if isinstance(text, str):
                text = _STEPS[step["type"]](step, text)
        return text if isinstance(text, bytes) else text.encode()

    return spell


def _byte_level(_: dict[str, Any], piece: str) -> str | bytes:
    """Every character stands for a byte; an entry with any other character is itself."""
    return bytes(_BYTES[character] for character in piece) if all(character in _BYTES for character in piece) else piece.encode()


def _metaspace(step: dict[str, Any], piece: str) -> str | bytes:
    return piece.replace(step["replacement"], " ")


def _replace(step: dict[str, Any], piece: str) -> str | bytes:
    pattern = step["pattern"].get("String")
    if pattern is None:
        raise UsageError("constrained output does not know which bytes a token is: this tokenizer's decoder replaces a regular expression")
    return piece.replace(pattern, step["content"])


def _byte_fallback(_: dict[str, Any], piece: str) -> str | bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return bytes([int(piece[3:5], 16)])
        except ValueError:
            pass
    return piece


_STEPS: dict[str, Callable[[dict[str, Any], str], str | bytes]] = {
    "ByteLevel": _byte_level,
    "Metaspace": _metaspace,
    "Replace": _replace,
    "ByteFallback": _byte_fallback,
}
# GPT-2's alphabet: bytes that print are themselves, the others follow from U+0100 on.
_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
_BYTES = {chr(byte): byte for byte in _PLAIN} | {chr(256 + place): byte for place, byte in enumerate(_OTHERS)}
