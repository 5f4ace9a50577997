"""The commands in the documentation, with what they print. Run as a program, it writes what they print now into the page.

A block of a page is a line `$ command` and the lines of its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

LEARN = Path(__file__).parents[1] / "docs" / "how-a-token-is-made.md"
BLOCK = re.compile(r"```console\n\$ (.*)\n((?s:.*?))```")


def examples(page: Path) -> list[tuple[str, str]]:
    """Each command of a page with the output that stands below it."""
    return [(command, output) for command, output in BLOCK.findall(page.read_text("utf-8"))]


def run(command: str) -> str:
    """What a command prints, in a terminal of 80 columns."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # One thread: tests run beside one another, and threads that wait for a core lose more than they gain.
    environment = {**os.environ, "PATH": path, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.decode()}")
    output = done.stdout.decode()
    return output if output.endswith("\n") else f"{output}\n"


def refresh(page: Path) -> None:
    """Write what the commands print now."""
    text = BLOCK.sub(lambda found: f"```console\n$ {found[1]}\n{run(found[1])}```", page.read_text("utf-8"))
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    refresh(LEARN)
