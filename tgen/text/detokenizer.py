"""Ids to text as they arrive, whole characters only. Knows one sequence of ids and nothing of where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.text.tokenizer import Tokenizer


class Detokenizer:
    """Text that continues a prompt. A character that spans several tokens comes out with the last of them."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._library = tokenizer.library
        # The prompt's ids tell the decoder whether the first new piece starts a word: some tokenizers drop a leading space.
        self._stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        """The text that has become whole with this token; often one word, sometimes nothing."""
        self._pending.append(token)
        text = self._stream.step(self._library, token)
        if text is None:
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What is left of a character whose rest never came, as U+FFFD."""
        text = self._library.decode(self._pending, skip_special_tokens=True) if self._pending else ""
        self._pending.clear()
        return text
