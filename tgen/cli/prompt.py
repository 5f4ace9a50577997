"""The arguments that give a command its text, and how that text is read as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tgen.errors import UsageError
from tgen.files import decode_text
from tgen.ui.input import has_companion, read_arguments, read_file, read_stdin

PromptArgument = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT", help="The text to continue; - reads standard input, also beside PROMPT.")
]
TextArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="The text to read; - reads standard input, also beside TEXT.")
]

LinesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="A text, or one on each line; - reads standard input, also beside TEXT.")
]


class PromptSource:
    """The text that a command line asks for. Only `read` waits for standard input, so that a model can load meanwhile."""

    def __init__(self, words: Sequence[str] | None, file: Path | None) -> None:
        """Reads the file. Raises UsageError if it is not UTF-8, and if there is nothing to read."""
        self._given = read_arguments(words, file)
        check_encoding("the argument", self._given.text or "")
        self._text = None if self._given.file is None else decode(read_file(self._given.file), str(file))

    def read(self) -> str:
        """The text. Waits for standard input; a newline joins it with an argument. Raises UsageError."""
        given = self._given
        if self._text is not None:
            return self._text
        if given.text is None:
            text = decode(read_stdin(), "standard input")
            if not text and not given.stdin:
                raise UsageError("standard input is empty", "give a text as an argument, with --file or through a pipe")
            return text
        companion = decode(read_stdin(), "standard input") if has_companion(given) else ""
        return "\n".join(text for text in (companion, given.text) if text)


def decode(data: bytes, name: str) -> str:
    """The text of a file or stream, without the newline that `echo` and editors put at the end of the last line."""
    return decode_text(data.removesuffix(b"\r\n" if data.endswith(b"\r\n") else b"\n"), name)


def check_encoding(name: str, text: str) -> None:
    """Raise UsageError for an argument that was not UTF-8: it reaches Python with lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is not UTF-8", "check the terminal's encoding") from error
