"""Streams text to stdout: exact bytes into a pipe, harmless and styled text on a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Protocol

from tgen.events import Event, Finished, Piece, Started, Token
from tgen.ui.harmless import harmless
from tgen.ui.output import open_stdout
from tgen.ui.terminal import Color, console, is_terminal, print_exactly, wants_color

# From unlikely to likely: each colour is for probabilities up to the number beside it.
HEAT = ((0.1, "red"), (0.3, "dark_orange"), (0.6, "yellow"), (0.9, "green_yellow"), (1.0, "green"))


class TextStream(Protocol):
    """Where generated text goes."""

    def prompt(self, text: str) -> None: ...
    def write(self, text: str, tokens: Sequence[Token] = (), *, reasoning: bool = False) -> None: ...
    def separate(self) -> None: ...
    def close(self) -> None: ...


class PipeStream:
    """Writes exactly the text, as UTF-8, and flushes each piece."""

    def __init__(self, echo: bool) -> None:
        self._echo = echo
        self._out = open_stdout()

    def prompt(self, text: str) -> None:
        """Write the prompt under --echo."""
        if self._echo:
            self.write(text)

    def write(self, text: str, tokens: Sequence[Token] = (), *, reasoning: bool = False) -> None:  # noqa: ARG002
        """Write a piece of text."""
        self._out.write(text.encode("utf-8"))
        self._out.flush()

    def separate(self) -> None:
        """Write the newline between two samples."""
        self.write("\n")

    def close(self) -> None:
        """Add nothing."""


class TerminalStream:
    """Writes text for a person: prompt and reasoning dim, control characters visible, tokens coloured by probability, a last newline."""

    def __init__(self, color: Color, *, raw: bool, show_probs: bool) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")
        self._console = console(sys.stdout, color)
        self._raw = raw
        self._show = show_probs
        self._column_zero = True

    def prompt(self, text: str) -> None:
        """Show the prompt, dim."""
        self._print(text, "dim")

    def write(self, text: str, tokens: Sequence[Token] = (), *, reasoning: bool = False) -> None:
        """Show a piece of text; with probabilities, token by token where the tokens spell the text."""
        spelled = "".join(token.score.text for token in tokens)
        if self._show and spelled and (spelled == text or spelled.strip() == text.strip()):
            for token in tokens:
                self._print(token.score.text, heat(math.exp(token.score.logprob)))
        else:
            least = min((token.score.logprob for token in tokens), default=0.0)
            self._print(text, heat(math.exp(least)) if self._show and tokens else "dim" if reasoning else None)

    def separate(self) -> None:
        """Show a line between two samples."""
        self.close()
        self._print("───\n", "dim")

    def close(self) -> None:
        """End the line if it is not ended."""
        if not self._column_zero:
            self._print("\n", None)

    def _print(self, text: str, style: str | None) -> None:
        if text:
            self._column_zero = text.endswith("\n")
            print_exactly(self._console, text if self._raw else harmless(text), style)


def heat(probability: float) -> str:
    """The colour of a probability."""
    return next(color for limit, color in HEAT if probability <= limit or limit == 1.0)


def open_stream(color: Color, *, echo: bool, raw: bool, show_probs: bool, markdown: bool = False) -> TextStream:
    """The stream for this stdout: a terminal, where Markdown may be laid out, or a pipe."""
    if markdown and is_terminal(sys.stdout):
        from tgen.ui.markdown import MarkdownStream  # its imports take time

        return MarkdownStream(color, raw=raw)
    if is_terminal(sys.stdout) or (show_probs and wants_color(sys.stdout, color)):
        return TerminalStream(color, raw=raw, show_probs=show_probs)
    return PipeStream(echo)


class SampleStream:
    """Shows samples one after another: the first as it comes, each later one as soon as those before it are done."""

    def __init__(self, stream: TextStream, prompt: str, count: int) -> None:
        self._stream = stream
        self._prompt = prompt
        self._count = count
        self._current = 0
        self._waiting: dict[int, list[Piece]] = {}
        self._finished: set[int] = set()

    def add(self, event: Event) -> None:
        """Take an event, and show all text whose turn has come."""
        if isinstance(event, Started):
            self._stream.prompt(self._prompt)
        elif isinstance(event, Piece) and event.index == self._current:
            self._stream.write(event.text, event.tokens, reasoning=event.reasoning)
        elif isinstance(event, Piece):
            self._waiting.setdefault(event.index, []).append(event)
        elif isinstance(event, Finished):
            self._finished.add(event.index)
            while self._current in self._finished:
                self._next()

    def close(self) -> None:
        """End the text: nothing more will come."""
        self._stream.close()

    def abandon(self) -> None:
        """End the line, so that the message of an error begins on a new one. What is shown already stays."""
        self._stream.close()

    def _next(self) -> None:
        self._current += 1
        if self._current >= self._count:
            return
        self._stream.separate()
        for piece in self._waiting.pop(self._current, []):
            self._stream.write(piece.text, piece.tokens, reasoning=piece.reasoning)
