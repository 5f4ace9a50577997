"""Data on stdout, in UTF-8 whatever the locale says. Knows no model."""

from __future__ import annotations

import json
import sys
from typing import Any

from tgen.ui.harmless import harmless
from tgen.ui.terminal import is_terminal


def write_text(text: str) -> None:
    """Text as it is into a pipe; harmless, and ended by a newline, on a terminal. Raises OSError if stdout is closed or full."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    if is_terminal(sys.stdout):
        text = harmless(text)
        text = text if text.endswith("\n") else f"{text}\n"
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def write_json(value: Any) -> None:
    """One JSON value on a line of its own."""
    write_text(json.dumps(value, ensure_ascii=False) + "\n")
