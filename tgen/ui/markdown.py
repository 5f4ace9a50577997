"""Markdown on a terminal: each top-level block is laid out once, when it is complete, and nothing is ever drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from rich import markdown
from rich.segment import Segment, Segments

from tgen.events import Token
from tgen.ui.harmless import harmless
from tgen.ui.stream import TerminalStream
from tgen.ui.terminal import Color

# After an empty line a list or indented code may still go on; nothing else does.
PATIENT = ("bullet_list_open", "ordered_list_open", "code_block")
PROBE = "a paragraph\n"


class MarkdownStream(TerminalStream):
    """Lays out the answer; the prompt and reasoning are no part of it, and appear as they come."""

    def __init__(self, color: Color, *, raw: bool) -> None:
        super().__init__(color, raw=raw, show_probs=False)
        # Tags of HTML are text here: a terminal has no other way to show them.
        self._parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        self._definitions: dict[str, Any] = {}  # the targets of links that blocks have defined so far
        self._source = ""  # what is not laid out yet
        self._spaced = False  # whether an empty line goes before the next block

    def write(self, text: str, tokens: Sequence[Token] = (), *, reasoning: bool = False) -> None:
        """Take a piece of text, and lay out the blocks that it completes."""
        if reasoning:
            self._lay_out(len(self._source))
            super().write(text, tokens, reasoning=True)
            return
        self._source += text.replace("\r", "") if self._raw else harmless(text)
        if "\n" in text:
            self._lay_out(self._complete())

    def close(self) -> None:
        """Lay out what is left."""
        self._lay_out(len(self._source))
        super().close()
        self._spaced = False

    def _complete(self) -> int:
        """How many characters the complete blocks have. A block is complete if a paragraph on the next line would be a block of its own."""
        whole = self._source[: self._source.rfind("\n") + 1]
        blocks = [token for token in self._parse(whole + PROBE) if token.level == 0 and token.map]
        lines = whole.split("\n")[:-1]
        first = blocks[-1].map[0]
        if first == len(lines) and len(blocks) > 1 and blocks[-2].type in PATIENT:
            first = blocks[-2].map[0]
        return sum(len(line) + 1 for line in lines[:first])

    def _lay_out(self, size: int) -> None:
        """Lay out the first `size` characters of the source."""
        tokens, self._source = self._parse(self._source[:size]), self._source[size:]
        block: list[Any] = []
        for token in tokens:
            block.append(token)
            if token.level == 0 and token.nesting <= 0:
                self._draw(block)
                block = []

    def _draw(self, block: list[Any]) -> None:
        """Draw a block, after an empty line if it is not the first."""
        super().close()  # the prompt's line
        shown = markdown.Markdown("", hyperlinks=False)  # a terminal would hide where a link leads
        shown.parsed = block
        lines = [*Segment.split_lines(self._console.render(shown))]
        while lines and not any(one.text for one in lines[-1]):
            lines.pop()
        first = next((number for number, line in enumerate(lines) if any(one.text for one in line)), 0)
        found = [Segment.line()] if self._spaced else []
        for line in lines[first:]:
            # A character reference such as &#x202e; becomes its character only here.
            found += [Segment(one.text if self._raw else harmless(one.text), one.style) for one in line]
            found.append(Segment.line())
        self._console.print(Segments(found), end="")
        self._spaced = True

    def _parse(self, source: str) -> list[Any]:
        return self._parser.parse(source, self._definitions)
