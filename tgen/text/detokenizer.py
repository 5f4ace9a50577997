"""Ids to text as they arrive, whole characters only. Knows one sequence of ids and nothing of where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.text.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Text that continues a prompt. A character that spans several tokens comes out with the last of them.

    The library's DecodeStream does the same, but raises an error for bytes that are no character right after some that are one.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # What was shown last tells whether the next piece starts a word: some tokenizers drop a leading space.
        self._shown = list(prompt)
        self._shown_text = tokenizer.decode(self._shown)
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        """The text that has become whole with this token; often one word, sometimes nothing."""
        self._pending.append(token)
        text = self._new_text()
        return "" if text.endswith(REPLACEMENT) else self._show(text)

    def flush(self) -> str:
        """What is left of a character whose rest never came, as U+FFFD."""
        return self._show(self._new_text())

    def _new_text(self) -> str:
        text = self._tokenizer.decode(self._shown + self._pending)
        if text.startswith(self._shown_text):
            return text[len(self._shown_text) :]
        # Bytes that are no character: byte fallback gives up those right before them too, which were shown as what they are.
        return self._tokenizer.decode(self._pending)

    def _show(self, text: str) -> str:
        if text:
            self._shown, self._pending = self._pending, []
            self._shown_text = self._tokenizer.decode(self._shown)
        return text
