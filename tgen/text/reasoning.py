"""Tells a model's reasoning from its answer: the text between think tags, or the channels of gpt-oss that are not its final one.

It alters no text; it cuts pieces where reasoning begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tgen.events import Event, Finished, Piece, Special, Token
from tgen.text.tokenizer import Tokenizer

# DeepSeek, Qwen, GLM and most others; EXAONE; Seed-OSS; Kimi; Magistral; Command A.
TAGS = {
    "<think>": "</think>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "◁think▷": "◁/think▷",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
COMMON = "<think>"
# The special tokens around the name of a channel in what gpt-oss writes. https://developers.openai.com/cookbook/articles/openai-harmony
TURN, CHANNEL, MESSAGE, FINAL = "<|start|>", "<|channel|>", "<|message|>", "final"

END = 32  # this many last ids or characters of a prompt can hold any tag

Part = tuple[str, bool]  # a text, and whether it is reasoning


class Reasoning:
    """Marks the pieces of each sample that are reasoning. A tag counts where a line begins with it: elsewhere, a text may speak of it."""

    def __init__(self, template: str = "", prompt: str = "") -> None:
        """`template` is the chat template's source, which shows the tags that the model knows beside <think>.

        `prompt` is the end of what the model continues: some templates write the first tag themselves.
        """
        self._tags = {begin: end for begin, end in TAGS.items() if begin == COMMON or begin in template or end in template}
        self._end = next((end for begin, end in self._tags.items() if prompt.rstrip().endswith(begin)), None)
        self._samples: dict[int, _Sample] = {}

    def feed(self, event: Event) -> Iterator[Event]:
        """The event, a piece of text cut where reasoning begins and ends; what may be half a tag is held back. Special is not passed on."""
        if not isinstance(event, Piece | Special | Finished):
            yield event
            return
        sample = self._samples.setdefault(event.index, _Sample(self._tags, self._end))
        if isinstance(event, Piece):
            yield from sample.pieces(event.index, sample.split(event.text), event.tokens)
            return
        yield from sample.pieces(event.index, sample.flush(), last=isinstance(event, Finished))
        if isinstance(event, Special):
            sample.read_special(event.text)
        else:
            yield event


def reasoning_of(tokenizer: Tokenizer, prompt: str | Sequence[int], template: str = "") -> Reasoning:
    """The Reasoning for samples that continue a prompt: a text, or the ids of a conversation that `template` wrote."""
    end = prompt[-END:]
    return Reasoning(template, end if isinstance(end, str) else tokenizer.decode([*end], special=True))


class _Sample:
    """One sample: whether it reasons now, and what is held back of it."""

    def __init__(self, tags: dict[str, str], end: str | None) -> None:
        self._tags = tags
        any_tag = "|".join(map(re.escape, tags))
        self._first, self._begin = re.compile(rf"\s*({any_tag})"), re.compile(rf"^({any_tag})", re.MULTILINE)
        self._end = end  # the tag that ends the current reasoning
        self._channel = False  # whether only a special token ends it
        self._header: str | None = None  # the name of a channel, as far as it has come
        self._after = False  # white space right behind reasoning belongs to it
        self._begun = False  # whether any of the answer has come
        self._line_start = True
        self._held = ""
        self._tokens: tuple[Token, ...] = ()

    def pieces(self, index: int, parts: Iterable[Part], tokens: tuple[Token, ...] = (), *, last: bool = False) -> Iterator[Piece]:
        """The parts as pieces. The last of them has the tokens; where there is none, they wait for the next, if one may come."""
        self._tokens += tokens
        found = [part for part in parts if part[0]]
        if last and self._tokens and not found:
            found = [("", self._reasons)]
        for text, reasoning in found[:-1]:
            yield Piece(index, text, (), reasoning)
        for text, reasoning in found[-1:]:
            yield Piece(index, text, self._tokens, reasoning)
            self._tokens = ()

    def split(self, text: str) -> Iterator[Part]:
        """The text in parts, without an end that may be half a tag."""
        text, self._held = self._held + text, ""
        while text:
            if self._channel:
                self._header = None if self._header is None else self._header + text
                yield text, True
                return
            if self._end is not None:
                found = re.search(re.escape(self._end), text)
                shown = text[: found.end() if found else len(text) - _half_tag(text, self._end)]
                yield shown, True
                if found is None:
                    self._held = text[len(shown) :]
                    return
                self._close()
            elif self._after and text[0].isspace():
                shown = text[: len(text) - len(text.lstrip())]
                yield shown, True
            else:
                self._after = False
                found = (None if self._begun else self._first.match(text)) or self._begin.search(text, 0 if self._line_start else 1)
                shown = text[: found.start() if found else len(text) - self._doubtful(text)]
                yield shown, False
                if found is None:
                    self._held = text[len(shown) :]
                    self._begun = self._begun or bool(shown)
                    self._line_start = shown.endswith("\n") if shown else self._line_start
                    return
                yield found[0], True
                self._begun, self._end = self._begun or bool(shown), self._tags[found[1]]
                shown += found[0]
            text = text[len(shown) :]

    def flush(self) -> Iterator[Part]:
        """What was held back: no more text will make a tag of it."""
        text, self._held = self._held, ""
        self._begun = self._begun or (bool(text) and not self._reasons)
        yield text, self._reasons

    def read_special(self, text: str) -> None:
        """Take a special token, which is no part of the text."""
        if text in TAGS:
            self._channel = True
        elif text in TAGS.values():
            self._close()
        elif text in (CHANNEL, TURN):
            self._channel, self._header = True, ""
        elif text == MESSAGE and self._header is not None:
            self._channel = self._header.split()[:1] != [FINAL]
            self._header = None

    @property
    def _reasons(self) -> bool:
        return self._channel or self._end is not None

    def _close(self) -> None:
        """End the reasoning."""
        self._channel, self._end, self._after, self._line_start = False, None, True, True

    def _doubtful(self, text: str) -> int:
        """How many characters at the end of an answer's text may turn out to be reasoning."""
        if not self._begun and any(tag.startswith(text.lstrip()) for tag in self._tags):
            return len(text)
        _, newline, line = text.rpartition("\n")
        return len(line) if line and (newline or self._line_start) and any(tag.startswith(line) for tag in self._tags) else 0


def _half_tag(text: str, tag: str) -> int:
    """How many characters at the end of a text may be the beginning of a tag."""
    return next((length for length in range(len(tag) - 1, 0, -1) if text.endswith(tag[:length])), 0)
