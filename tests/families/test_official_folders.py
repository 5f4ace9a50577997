"""Folders as the hub has them run without a word, or one true line refuses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Ask, ask  # noqa: F401
from tests.families.catalogue import OFFICIAL
from tests.families.official import write_folder
from tests.families.official_others import REFUSED
from tests.sweeps import sweep

SOME = frozenset([*OFFICIAL][::3])
TEXTS = {"fill": "once [MASK] a time"}


@pytest.mark.parametrize("name", sweep(OFFICIAL, lambda name: name in SOME))
def test_an_official_folder_runs_without_a_warning(name: str, ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    official = OFFICIAL[name]
    folder = write_folder(official, tmp_path / name)
    for command in official.commands:
        said = ask(
            command,
            "-m",
            folder,
            *(["-n", "3", "--temperature", "0"] if command == "generate" else []),
            TEXTS.get(command, "Once upon a time"),
        )
        assert said.err == ""


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_does_not_run_is_refused_by_one_true_line(name: str, ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    official = REFUSED[name]
    said = ask("embed", "-m", write_folder(official, tmp_path / "folder"), "Once upon a time", code=3)
    assert official.refusal is not None
    assert official.refusal in said.err.splitlines()[0]
