"""Draws docs/terminal.svg: real commands, run in a pseudo-terminal, and their real output. tgen must be installed for this Python."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = [
    'tgen generate "Once upon a time" --seed 7',
    'tgen generate "The wolf said" -n 25 --seed 3 --show-probs',
    'tgen generate --chat "Write a story with the words bear, honey and cave." -n 60 --seed 1',
    'tgen generate "The end of" --temperature 0 -n 12 | wc -w',
]
WIDTH = 96


def run(command: str) -> str:
    """What a terminal shows while a command runs."""
    ours, theirs = pty.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "PATH": path}
    with subprocess.Popen(["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # a pseudo-terminal raises this when nobody writes to it any more
            while data := os.read(ours, 4096):
                shown += data
    return shown.decode().replace("\r\n", "\n")


def main() -> None:
    """Write the picture beside this script."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for command in COMMANDS:
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(run(command)), soft_wrap=False)
        console.print()
    console.save_svg(str(Path(__file__).with_name("terminal.svg")), title="tgen")


if __name__ == "__main__":
    main()
