"""`tgen generate --prompt-cache`: what is said, what is kept, and what is refused before anything is computed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cli.conftest import Ask
from tests.cli.processes import golden, on_terminal, running
from tests.conftest import GOLDEN

COMMAND = ("generate", "The old king had three sons", "-m", golden("llama2"), "-n", "6", "--seed", "1")


def test_the_text_is_the_same_and_the_saving_is_told(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    plain = ask(*COMMAND, "--json").json
    first = ask(*COMMAND, "--json", "--prompt-cache", path)
    again = ask(*COMMAND, "--json", "--prompt-cache", path)
    assert first.err == again.err == ""
    assert plain["choices"] == first.json["choices"] == again.json["choices"]
    assert plain["usage"] == first.json["usage"]
    tokens = plain["usage"]["prompt_tokens"]
    assert again.json["usage"] == {**plain["usage"], "prompt_tokens_details": {"cached_tokens": tokens - 1}}
    _, shown = on_terminal(*COMMAND, "--prompt-cache", str(path))
    assert f"{tokens} ({tokens - 1} cached) + 6 tokens" in shown


def test_a_file_of_no_use_is_a_note(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    text = ask(*COMMAND, "--prompt-cache", path).out
    said = ask(*COMMAND[:2], "-m", golden("gpt2"), "-n", "1", "--prompt-cache", path)
    assert said.err.startswith("note: ")
    assert "made with another model" in said.err
    assert ask(*COMMAND, "--prompt-cache", path).out == text


def test_what_cannot_be_is_refused(ask: Ask, tmp_path: Path) -> None:
    assert "cannot be used: No such file" in ask(*COMMAND, "--prompt-cache", tmp_path / "no" / "cache", code=2).err
    assert "is not a file" in ask(*COMMAND, "--prompt-cache", tmp_path, code=2).err
    (tmp_path / "story.txt").write_text("precious")
    assert "exists and is not a prompt cache" in ask(*COMMAND, "--prompt-cache", tmp_path / "story.txt", code=2).err
    assert (tmp_path / "story.txt").read_text() == "precious"
    assert "is encoder-decoder" in ask("generate", "x", "-m", GOLDEN / "t5", "--prompt-cache", tmp_path / "cache", code=2).err


def test_a_reader_that_leaves_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with running(*COMMAND[:4], "-n", "3900", "--ignore-eos", "--prompt-cache", str(path), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait() == 0
    assert path.exists()
