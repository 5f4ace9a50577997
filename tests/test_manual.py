"""The manual pages: one for tgen and for each command, with every option of its help, and no fault that roff would report."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tgen.cli.main import COMMANDS, make_app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    subprocess.run([sys.executable, ROOT / "hatch_manual.py", folder], check=True, timeout=60)
    return folder


def test_there_is_a_page_for_each_command(manual: Path) -> None:
    assert {path.name for path in manual.iterdir()} == {"tgen.1", *(f"tgen-{name}.1" for name in COMMANDS)}


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_names_every_option(manual: Path, name: str) -> None:
    group: Any = typer.main.get_command(make_app([name]))
    shown = rendered(manual / f"tgen-{name}.1")
    assert shown.startswith(f"TGEN-{name.upper()}(1)")
    for parameter in group.commands[name].params:
        words = [parameter.metavar] if parameter.param_type_name == "argument" else [*parameter.opts, *parameter.secondary_opts]
        assert [word for word in words if f" {word}" not in shown] == []
        assert " ".join(parameter.help.split()).replace("`", "") in " ".join(shown.split())


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_the_first_page_lists_the_commands(manual: Path) -> None:
    shown = rendered(manual / "tgen.1")
    assert all(f"tgen-{name}(1)" in shown for name in COMMANDS)
    assert "--install-completion" in shown
    assert "-h, --help" in shown


def rendered(page: Path) -> str:
    """What `man` shows; it must not warn."""
    command = ["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", str(page)]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C.UTF-8"}, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout
