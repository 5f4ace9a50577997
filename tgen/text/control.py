"""Keeps the text of messages apart from the text of the chat template: `<|im_end|>` in a message stays text.

Control tokens in messages are marked before the template is rendered; then the text is cut at the marks, and each marked part is encoded
without special tokens. A conversation that has none of them is encoded in one piece, exactly as transformers does it. (transformers has
this, too, as `sanitize_control_tokens`.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tgen.errors import UsageError
from tgen.text.tokenizer import Tokenizer

# Characters for private use, so no vocabulary has them.
BEGIN, END = "\U000f0000", "\U000f0001"


class Controls:
    """The control tokens of a tokenizer that a template is written for."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added()
        # A token that the tokenizer does not call special is a control token if the template writes it, like Qwen's <think>.
        special = [text for text, is_special in added.items() if is_special]
        every = [text for text, is_special in added.items() if is_special or (text in template and not text.isspace())]
        self._special, self._begun = _apart(special), _begun(every)
        self._any, self._all = _apart(every), _any_of(every)

    def mark(self, text: str, role: str) -> str:
        """A message's text with its control tokens marked. A message of the assistant may hold those that are not special.

        Also marked is what the template could make into a control token: one with white space inside, which it may strip, and the
        beginning of one at the end of the message, which the text that follows may complete.
        """
        text = text.replace(BEGIN, "").replace(END, "")
        pattern = self._special if role == "assistant" else self._any
        return self._begun.sub(rf"\g<0>{END}", pattern.sub(rf"{BEGIN}\g<0>{END}", text))

    def mark_all(self, value: Any, role: str) -> Any:
        """A value with every text inside it marked."""
        if isinstance(value, str):
            return self.mark(value, role)
        if isinstance(value, Mapping):
            return {self.mark(key, role): self.mark_all(item, role) for key, item in value.items()}
        return [self.mark_all(item, role) for item in value] if isinstance(value, list | tuple) else value

    def encode(self, text: str) -> list[int]:
        """The ids of a rendered text, with the marked parts as plain text. Raises UsageError where the tokenizer cannot tell them apart."""
        # A template may have cut a message between a mark and its token; then the lone mark still keeps the two sides apart.
        first, *pieces = re.split(f"({BEGIN}{self._all.pattern}{END}|[{BEGIN}{END}])", text)
        ids = self._tokenizer.encode(first, special=False) if first else []
        for piece in pieces:
            plain = piece.strip(BEGIN + END)
            if plain:
                ids += self._as_text(plain) if plain != piece else self._continued(self._tokenizer, plain)
        return ids

    def _as_text(self, token: str) -> list[int]:
        ids = self._continued(self._tokenizer.without_added, token)
        if self._tokenizer.id_of(token) in ids:
            raise UsageError(f"{token!r} in a message cannot be told from the model's own {token!r}", "leave it out or write it otherwise")
        return ids

    @staticmethod
    def _continued(tokenizer: Tokenizer, text: str) -> list[int]:
        """Ids of a part from the middle of a text: some tokenizers put a space before the beginning of a text alone."""
        newline = tokenizer.encode("\n", special=False)
        ids = tokenizer.encode("\n" + text, special=False)
        return ids[len(newline) :] if newline and ids[: len(newline)] == newline else tokenizer.encode(text, special=False)


def _apart(texts: list[str]) -> re.Pattern[str]:
    """Any of these texts, with white space anywhere in them or without."""
    return _pattern([r"\s*".join(map(re.escape, "".join(text.split()) or text)) for text in sorted(texts, key=len, reverse=True)])


def _begun(texts: list[str]) -> re.Pattern[str]:
    """The beginning of any of these texts at the end of another, with or without white space after it."""
    starts = {text[:length] for text in texts for length in range(1, len(text))}
    return re.compile(_pattern([re.escape(start) for start in sorted(starts, key=len, reverse=True)]).pattern + r"(?=\s*\Z)")


def _any_of(texts: list[str]) -> re.Pattern[str]:
    """Any of these texts, longer ones first; nothing if there are none."""
    return _pattern([re.escape(text) for text in sorted(texts, key=len, reverse=True)])


def _pattern(choices: list[str]) -> re.Pattern[str]:
    return re.compile("(?:" + ("|".join(choices) or "(?!)") + ")")
