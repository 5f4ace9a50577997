"""The bytes that each entry of a vocabulary stands for, read from the decoder of a tokenizer.json.

That works for decoders that write an entry as the same bytes anywhere in a text, except for white space at its very start. WordPiece's
decoder, for one, puts spaces between words, so its entries have no bytes of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# GPT-2's alphabet: bytes that print are themselves, the others follow from U+0100 on.
_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_BYTES = {chr(byte): byte for byte in _PLAIN} | {chr(256 + place): byte for place, byte in enumerate(_OTHERS)}
_CHARACTERS = {byte: character for character, byte in _BYTES.items()}


def spelled_bytes(data: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    return "".join(_CHARACTERS[byte] for byte in data)


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """How a decoder spells: `byte_level` like GPT-2, else pieces of text in which strings are replaced, and perhaps bytes like <0x0A>."""

    byte_level: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    stripped: int = 0  # how many spaces the decoder takes from the very start of a text
    first_without: str = ""  # a string that the decoder removes from the first piece of a text, at any place

    def spell(self, piece: str) -> bytes:
        """The bytes of an entry in the middle of a text."""
        if self.byte_level:
            # An entry with any character that stands for no byte is its own UTF-8 bytes.
            return bytes(_BYTES[c] for c in piece) if all(c in _BYTES for c in piece) else piece.encode()
        if self.is_byte(piece):
            return bytes.fromhex(piece[3:5])
        for old, new in self.replacements:
            piece = piece.replace(old, new)
        return piece.encode()

    def is_byte(self, piece: str) -> bool:
        """Whether an entry is one byte of a character, like <0x0A>."""
        return self.byte_fallback and _BYTE.fullmatch(piece) is not None


SENTENCEPIECE = TokenBytes(replacements=(("▁", " "),), byte_fallback=True)


def read_token_bytes(decoder: dict[str, Any] | None) -> TokenBytes | None:
    """The spelling that the "decoder" of a tokenizer.json describes; None for a decoder whose entries have no bytes of their own."""
    steps = [] if decoder is None else list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]
    stripped = 0
    if len(steps) > 1 and steps[-1]["type"] == "Strip" and steps[-2]["type"] in ("ByteLevel", "Fuse"):  # which join the pieces first
        strip = steps.pop()
        if strip["content"] != " " or strip["stop"]:
            return None
        stripped = strip["start"]
    replacements: list[tuple[str, str]] = []
    while steps and steps[0]["type"] == "Replace":
        step = steps.pop(0)
        if not step["pattern"].get("String"):
            return None
        replacements.append((step["pattern"]["String"], step["content"]))
    match [step["type"] for step in steps]:
        case ["ByteLevel"] if not replacements:
            return TokenBytes(byte_level=True, stripped=stripped)
        case ["Metaspace"] if not replacements:
            mark = steps[0]["replacement"]
            return TokenBytes(replacements=((mark, " "),), first_without="" if steps[0]["prepend_scheme"] == "never" else mark)
        case ["ByteFallback"] | ["ByteFallback", "Fuse"]:
            return TokenBytes(replacements=tuple(replacements), byte_fallback=True, stripped=stripped)
        case ["Fuse"] | [] if replacements:
            return TokenBytes(replacements=tuple(replacements), stripped=stripped)
    return None
