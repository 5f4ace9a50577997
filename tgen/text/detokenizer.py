"""Turns ids into text as they arrive, whole characters only."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tgen.text.token_bytes import TokenBytes
from tgen.text.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LONGEST_CHARACTER = 4  # bytes
MOST_PENDING = 8


class Detokenizer:
    """Text that continues a prompt. A character that spans several tokens comes out with the last of them.

    Where each token has bytes of its own, those are enough; else the library decodes the last few tokens again. (The library's own
    DecodeStream raises an error where bytes that are no character follow bytes that are one.)
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        spelled = tokenizer.token_bytes
        self._text = _Decoded(tokenizer, prompt) if spelled is None else _Spelled(tokenizer, spelled, prompt)

    def feed(self, token: int) -> str:
        """The text that this token completes; often one word, sometimes nothing."""
        return "" if self._tokenizer.written(token) is None else self._text.feed(token)

    def flush(self) -> str:
        """The bytes of a character that no token completed, as U+FFFD."""
        return self._text.flush()


class _Spelled:
    """The text of tokens whose bytes are known."""

    def __init__(self, tokenizer: Tokenizer, spelled: TokenBytes, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._begun = False
        self._strip = spelled.stripped
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._run = _Run()
        for token in prompt:
            if self._begun and not self._strip:
                break
            if tokenizer.written(token) is not None:
                self.feed(token)
        self.flush()

    def feed(self, token: int) -> str:
        piece = self._tokenizer.written(token) or ""
        if not self._begun:
            self._begun = True
            if self._spelled.first_without:
                piece = piece.replace(self._spelled.first_without, "")
        data = self._spelled.spell(piece)
        if not self._spelled.byte_fallback:
            return self._without_start(self._characters.decode(data))
        return self._without_start(self._run.feed(data) if self._spelled.is_byte(piece) else self._run.end() + data.decode())

    def flush(self) -> str:
        return self._without_start(self._run.end() + self._characters.decode(b"", final=True))

    def _without_start(self, text: str) -> str:
        """The text without the spaces that the decoder strips from the very start."""
        while self._strip and text:
            if text[0] != " ":
                self._strip = 0
            else:
                self._strip, text = self._strip - 1, text[1:]
        return text


class _Run:
    """Successive tokens of one byte each. The library writes all bytes of such a run as U+FFFD, unless the whole run is valid text.

    Text that was shown is not taken back: then only the bytes after it become U+FFFD.
    """

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")("strict")
        self._pending = 0
        self._broken = False

    def feed(self, byte: bytes) -> str:
        self._pending += 1
        if not self._broken:
            try:
                text = self._characters.decode(byte)
            except UnicodeDecodeError:
                self._broken = True
            else:
                self._pending = 0 if text else self._pending
                return text
        return self._lost()

    def end(self) -> str:
        self._broken = False
        self._characters.reset()
        return self._lost()

    def _lost(self) -> str:
        lost, self._pending = REPLACEMENT * self._pending, 0
        return lost


class _Decoded:
    """The text of tokens as the library decodes them after those that were shown last."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # The text shown last tells whether the next piece starts a word: some tokenizers drop a leading space.
        self._shown = list(prompt)
        self._shown_text = tokenizer.decode(self._shown)
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        self._pending.append(token)
        text = self._new_text()
        if not text.endswith(REPLACEMENT):
            return self._show(text)
        if len(self._pending) <= MOST_PENDING:
            return ""
        # Only the last tokens can be the beginning of a character.
        self._pending, rest = self._pending[: 1 - LONGEST_CHARACTER], self._pending[1 - LONGEST_CHARACTER :]
        text = self._show(self._new_text())
        self._pending += rest
        return text

    def flush(self) -> str:
        return self._show(self._new_text())

    def _new_text(self) -> str:
        text = self._tokenizer.decode(self._shown + self._pending)
        if text.startswith(self._shown_text):
            return text[len(self._shown_text) :]
        # These bytes are no character, so byte fallback turns the bytes right before them into U+FFFD too; but those were shown already.
        return self._tokenizer.decode(self._pending)

    def _show(self, text: str) -> str:
        if text or len(self._pending) > MOST_PENDING:
            self._shown, self._pending = self._pending, []
            self._shown_text = self._tokenizer.decode(self._shown)
        return text
