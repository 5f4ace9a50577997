"""Data on stdout, in UTF-8 whatever the locale says."""

from __future__ import annotations

import json
import sys
from typing import Any, BinaryIO

from tgen.ui.harmless import harmless
from tgen.ui.terminal import is_terminal


def open_stdout() -> BinaryIO:
    """The stream for bytes on stdout. Raises OSError if stdout is closed."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    return sys.stdout.buffer


def write_text(text: str) -> None:
    """Write text as it is into a pipe; on a terminal make it harmless and end it with a newline.

    Raises OSError if stdout is closed or full.
    """
    out = open_stdout()
    if is_terminal(sys.stdout):
        text = harmless(text)
        text = text if text.endswith("\n") else f"{text}\n"
    out.write(text.encode("utf-8"))
    out.flush()


def write_json(value: Any) -> None:
    """Write one JSON value on a line of its own."""
    write_text(json.dumps(value, ensure_ascii=False) + "\n")
