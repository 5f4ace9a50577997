"""Options that commands share: each is declared once, and none takes an empty value for the default or for the current folder."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Ask

EMPTY = [
    (["generate", "x", "-m", ""], "--model"),
    (["generate", "x", "--model="], "--model"),
    (["translate", "x", "-m", ""], "--model"),
    (["info", ""], "MODEL"),
    (["info", "-m", ""], "--model"),
    (["generate", "-f", ""], "--file"),
    (["generate", "x", "--prompt-cache", ""], "--prompt-cache"),
    (["generate", "x", "--stop", "a", "--stop", ""], "--stop"),
    (["generate", "x", "--json-schema", ""], "--json-schema"),
    (["generate", "x", "--system", ""], "--system"),
    (["generate", "x", "--temperature", ""], "--temperature"),
    (["batch", ""], "FILE"),
    (["batch", "-o", ""], "--output"),
    (["attention", "x", "--svg", ""], "--svg"),
    (["train", "x", "-o", ""], "--output"),
    (["tokenize", "x", "-m", ""], "--model"),
]


@pytest.mark.parametrize(("arguments", "name"), EMPTY)
def test_an_empty_value_is_refused_by_name(ask: Ask, arguments: list[str], name: str) -> None:
    said = ask(*arguments, code=2)
    assert said.err == f"error: {name} must not be empty\nhint: give a value, or leave {name} out\n"
    assert said.out == ""


def test_a_text_and_a_variable_may_be_empty(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGEN_MODEL", "")
    assert ask("tokenize", "", "--ids").out == "\n"
