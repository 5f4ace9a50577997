"""What a model writes before its answer: dim at a terminal, exact in a pipe, left out by --no-reasoning; and Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import on_terminal
from tests.cli.talking import OPTIONS, TEMPLATE, chat_model

TEXT = "<think>hm *x*\n</think>\n\nyes *x*"
GENERATE = ("generate", "Q: ", "--choices", '["<think>hm *x*\\n</think>\\n\\nyes *x*"]', "--seed", "1")


def test_a_pipe_gets_the_text_as_it_is(ask: Ask) -> None:
    assert ask(*GENERATE, "--markdown").out == TEXT
    assert ask(*GENERATE, "--no-reasoning").out == "yes *x*"
    assert ask(*GENERATE, "--no-reasoning", "--json").json["choices"][0]["text"] == "yes *x*"


def test_a_terminal_shows_it_dim() -> None:
    _, shown = on_terminal(*GENERATE, "--quiet")
    assert shown.replace("\x1b[0m\x1b[2m", "") == "\x1b[2mQ: <think>hm *x*\n</think>\n\n\x1b[0myes *x*\n"
    _, shown = on_terminal(*GENERATE, "--quiet", "--no-reasoning", "--color", "never")
    assert shown == "Q: yes *x*\n"
    _, shown = on_terminal(*GENERATE, "--quiet", "--markdown", "--color", "never", columns=20)
    assert [line.rstrip() for line in shown.splitlines()] == ["Q: <think>hm *x*", "</think>", "", "yes x"]


def test_markdown_cannot_show_probabilities(ask: Ask) -> None:
    assert "--show-probs and --markdown exclude each other" in ask("generate", "x", "--show-probs", "--markdown", code=2).err


@pytest.mark.parametrize("tag", ["<think>", "<seed:think>"])
def test_a_conversation_whose_template_begins_the_reasoning(ask: Ask, tmp_path: Path, tag: str) -> None:
    model = str(chat_model(tmp_path / "model", f"{TEMPLATE}{tag}\n"))
    whole = ask("chat", "-m", model, *OPTIONS, stdin=b"Hello\n").out
    assert len(whole) > 1
    assert ask("chat", "-m", model, *OPTIONS, "--no-reasoning", stdin=b"Hello\n").out == "\n"
    assert ask("generate", "Hello", "--chat", "-m", model, *OPTIONS).out == whole[:-1]
    assert ask("generate", "Hello", "--chat", "-m", model, *OPTIONS, "--no-reasoning").out == ""
    _, shown = on_terminal("generate", "Hello", "--chat", "-m", model, *OPTIONS, "--color", "always", "--quiet")
    assert shown.count("\x1b[2m") > 1
    assert shown.split("\x1b[0m")[-1].strip() == ""


def test_the_settings_may_leave_it_out(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text("reasoning = false\n")
    monkeypatch.setenv("TGEN_CONFIG", str(settings))
    assert ask(*GENERATE).out == "yes *x*"
    assert ask(*GENERATE, "--reasoning").out == TEXT
