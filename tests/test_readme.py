"""The README is true: its recipes and its Python example run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str, heading: str) -> list[str]:
    section = README.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


@pytest.mark.parametrize("recipe", blocks("sh", "Recipes")[0].strip().splitlines())
def test_recipe_runs(recipe: str, tmp_path: Path) -> None:
    story = tmp_path / "story.txt"  # which the first recipe writes, and others read
    if "> story.txt" not in recipe:
        story.write_text("Once upon a time a fox met a wolf, and the wolf was hungry. " * 20, "utf-8")
    before = set(tmp_path.iterdir())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}  # other tests run beside it
    done = subprocess.run(
        ["bash", "-euc", recipe], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout or set(tmp_path.iterdir()) > before
    assert b"\x1b" not in done.stdout
    assert b"Traceback" not in done.stderr


def test_python_example_runs(tmp_path: Path) -> None:
    [example] = blocks("python", "In Python")
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, timeout=100, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[length]\n")


def test_every_command_is_listed() -> None:
    from tgen.cli.main import COMMANDS

    listed = set(re.findall(r"^\| `tgen (\w+)", README.read_text("utf-8"), flags=re.MULTILINE))
    assert listed == set(COMMANDS)
