"""Puts text on the clipboard of the machine that a person sits at, also through ssh and tmux: the terminal does it (OSC 52)."""

from __future__ import annotations

import os
import sys
from base64 import b64encode

from tgen.errors import UsageError
from tgen.ui.terminal import is_terminal

# xterm takes no more. Other terminals silently take less, each its own amount.
MOST_BYTES = 74_994


def copy(text: str) -> None:
    """Send a text to the clipboard. Raises UsageError where no terminal could take it."""
    screen = next((stream for stream in (sys.stdout, sys.stderr) if is_terminal(stream)), None)
    if screen is None or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("this terminal has no clipboard", "/save FILE writes the messages to a file")
    encoded = b64encode(text.encode("utf-8"))
    if len(encoded) > MOST_BYTES:
        raise UsageError(f"the answer is too long for a terminal's clipboard: {len(encoded):,} bytes", "/save FILE writes it to a file")
    sequence = b"\x1b]52;c;" + encoded + b"\x07"
    if os.environ.get("TERM", "").startswith("screen") and "TMUX" not in os.environ:  # GNU screen passes on only what is wrapped
        sequence = b"\x1bP" + sequence + b"\x1b\\"
    screen.flush()
    screen.buffer.write(sequence)
    screen.buffer.flush()
