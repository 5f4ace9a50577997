"""Tells whether a standard stream is a terminal, and whether it takes colour: --color > NO_COLOR > FORCE_COLOR > terminal.

Only functions that draw import rich.
"""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

Color = Literal["auto", "always", "never"]


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether this one stream is a terminal; a closed one is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def wants_color(stream: IO[str] | None, color: Color) -> bool:
    """Whether to send colour to a stream. FORCE_COLOR, common in build systems, never puts escape bytes into a redirected stdout."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR") and (stream is not sys.stdout or is_terminal(stream)):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def console(stream: IO[str], color: Color) -> Console:
    """A rich console that draws colour exactly where `wants_color` says; a terminal without colour can still show progress bars."""
    from rich.console import Console

    colorful = wants_color(stream, color)
    system: Literal["auto", "standard"] = "standard" if os.environ.get("TERM") == "dumb" else "auto"
    return Console(
        file=stream,
        force_terminal=colorful or is_terminal(stream),
        color_system=system if colorful else None,
        no_color=not colorful,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )


def print_exactly(console: Console, text: str, style: str | None) -> None:
    """Write text unchanged: no markup, wrapping, expanded tabs or added newline, unlike `Console.print` for a string."""
    from rich.segment import Segment, Segments
    from rich.style import Style

    console.print(Segments([Segment(text, Style.parse(style) if style else None)]), end="")
