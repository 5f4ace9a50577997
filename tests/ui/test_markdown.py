"""Markdown on a terminal: whole blocks, each laid out once, the same however the text is cut into pieces."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Markdown

from tgen.events import Finished, Piece, Started
from tgen.ui.stream import SampleStream, TextStream, open_stream

DOCUMENT = """\
# A title

A paragraph with *stress*, `code` and a [link](https://example.org/?a=1),
over two lines. It ends with a literal <b>tag</b> & an entity: &amp;.
Setext
------
- one
- two

  - inner

  more of two

1. first
2. second
***
> quoted
goes on

```python
def f(x):

    return x  # ```
```
    indented

    code

| a | b |
|---|--:|
| 1 | 2 |
<div>

[ref]: https://example.org/ref
See [ref] and ~~nothing~~.
"""
STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A terminal's text."""

    def isatty(self) -> bool:
        return True


Show = Callable[..., tuple[TextStream, Screen]]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Iterator[Show]:
    """A new stream that lays out Markdown, and what it writes to."""
    with monkeypatch.context() as patch:

        def begin(width: int = 60, raw: bool = False) -> tuple[TextStream, Screen]:
            screen = Screen()
            patch.setattr("sys.stdout", screen)
            patch.setenv("COLUMNS", str(width))
            return open_stream("always", echo=False, raw=raw, show_probs=False, markdown=True), screen

        patch.setenv("TERM", "xterm-256color")
        yield begin


def shown(show: Show, pieces: list[str], width: int = 60) -> str:
    stream, screen = show(width)
    for piece in pieces:
        stream.write(piece)
    stream.close()
    return screen.getvalue()


def whole(text: str, width: int = 60) -> str:
    """What rich makes of a document at once."""
    screen = Screen()
    document = Markdown("", hyperlinks=False)
    document.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)
    Console(file=screen, force_terminal=True, width=width).print(document)
    return screen.getvalue()


def plain(text: str) -> str:
    """The text without styles and without the spaces that fill lines."""
    return "\n".join(line.rstrip() for line in STYLES.sub("", text).splitlines())


def drawn(text: str) -> list[str]:
    """The lines that are not empty: rich puts a changing number of those between blocks."""
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("size", [1, 2, 5, 40, 10**4])
def test_a_document_looks_the_same_in_pieces(show: Show, size: int) -> None:
    pieces = [DOCUMENT[start : start + size] for start in range(0, len(DOCUMENT), size)]
    text = plain(shown(show, pieces))
    assert text == plain(shown(show, [DOCUMENT]))
    assert drawn(text) == drawn(plain(whole(DOCUMENT)))


LINES = st.sampled_from(["- a", "  b", "* c", "1. d", "# e", "f", "```", "~~~", "> g", "    h", "|i|j|", "|-|-|", "---", "===", "", "<m>"])


@given(lines=st.lists(LINES, max_size=12), size=st.integers(1, 9), width=st.integers(12, 60))
@settings(deadline=None, derandomize=True, database=None, max_examples=300)
def test_any_lines_look_the_same_in_pieces(lines: list[str], size: int, width: int) -> None:
    text = "\n".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "xterm-256color")
        screen = Screen()
        patch.setattr("sys.stdout", screen)
        stream = open_stream("always", echo=False, raw=False, show_probs=False, markdown=True)
        for start in range(0, len(text), size):
            stream.write(text[start : start + size])
        stream.close()
    assert drawn(plain(screen.getvalue())) == drawn(plain(whole(text, width)))


@pytest.mark.parametrize(
    ("block", "ends_with"),
    [
        ("# title\n", ""),
        ("one\ntwo\n", "\n"),
        ("***\n", ""),
        ("```\ncode\n\nmore\n```\n", ""),
        ("> quoted\n", "\n"),
        ("|a|\n|-|\n|b|\n", "\n"),
        ("- one\n\n- two\n\n", "x\n"),
        ("    code\n\n    more\n\n", "x\n"),
    ],
)
def test_a_block_appears_when_it_is_complete_and_not_before(show: Show, block: str, ends_with: str) -> None:
    stream, screen = show()
    for line in block.splitlines(keepends=True)[: None if ends_with else -1]:
        stream.write(line)
        assert screen.getvalue() == ""
    stream.write(ends_with or block.splitlines(keepends=True)[-1])
    before = screen.getvalue()
    assert before
    stream.write("\nlast")
    stream.close()
    assert screen.getvalue().startswith(before), "what is shown stays"


def test_only_styles_reach_the_terminal(show: Show) -> None:
    hostile = "a&#27;[2Jb &#x202e; \x1b]52;c;QUJD\x07 &#x9b;2J\r [x](https://e.org/&#27;[2J) \u202e\n\n```\n\x1b[2J\n```\n"
    text = shown(show, [hostile])
    assert not set(STYLES.sub("", text)) & set("\x1b\x9b\x07\r\u202e")
    assert "https://e.org/" in text


def test_the_prompt_and_reasoning_are_no_markdown(show: Show) -> None:
    stream, screen = show()
    sink = SampleStream(stream, "# *Say*", 2)
    for event in (
        Started(1, 9, 0),
        Piece(0, "<think>*hm*", reasoning=True),
        Piece(0, "</think>\n\n", reasoning=True),
        Piece(0, "an *answer"),
        Piece(0, "*"),
        Finished(0, "stop", 1, 0, 0),
        Piece(1, "```\nunclosed"),
        Finished(1, "length", 1, 0, 0),
    ):
        sink.add(event)
    sink.close()
    lines = [line for line in plain(screen.getvalue()).splitlines() if line]
    assert lines == ["# *Say*<think>*hm*</think>", "an answer", "───", " unclosed"]
    assert "\x1b[2m<think>*hm*" in screen.getvalue()


def test_without_colour_there_are_no_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    stream = open_stream("never", echo=False, raw=False, show_probs=False, markdown=True)
    stream.write("# *Title*\n")
    stream.close()
    assert "\x1b" not in screen.getvalue()
    assert "Title" in screen.getvalue()


def test_a_pipe_gets_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    stream = open_stream("always", echo=False, raw=False, show_probs=False, markdown=True)
    stream.write("# *a*\n\nb", reasoning=True)
    stream.close()
    assert written.getvalue() == b"# *a*\n\nb"
