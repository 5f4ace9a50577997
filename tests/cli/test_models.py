"""`tgen info`, `tgen models` and `tgen tokenize`: what is on this machine, without torch and without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.processes import golden
from tests.conftest import GOLDEN
from tgen.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with a model that runs, one that cannot, one half deleted; and nothing from this machine."""
    cache = tmp_path / "hub"
    whole = cache / "models--org--small" / "snapshots" / "abc"
    shutil.copytree(GOLDEN / "gpt2", whole)
    (whole.parent / "newer").mkdir()
    (whole.parents[1] / "refs").mkdir()
    (whole.parents[1] / "refs" / "main").write_text("abc")
    other = cache / "models--org--strange" / "snapshots" / "abc"
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "mamba"}')
    (cache / "models--org--gone").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("TGEN_MODEL", raising=False)
    return cache


def output(capsys: Captured, *arguments: str) -> str:
    assert main.run(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_models_of_the_cache_are_listed_and_found_by_name(capsys: Captured, cache: Path) -> None:
    rows = {row["name"]: row for row in json.loads(output(capsys, "models", "--json"))}
    assert "org/gone" not in rows
    assert rows["org/small"]["runs"] is True
    assert rows["org/small"]["folder"] == str(cache / "models--org--small" / "snapshots" / "abc")
    assert rows["org/strange"]["runs"] is False
    lines = [line for line in output(capsys, "models").splitlines() if line.startswith("org/")]
    assert [line.split()[0] for line in lines] == ["org/small", "org/strange"]
    assert "model_type = 'mamba' is not implemented" in lines[1]
    assert json.loads(output(capsys, "info", "org/small", "--json"))["model_type"] == "gpt2"


def test_a_misspelt_name_gets_the_nearest(capsys: Captured) -> None:
    assert main.run(["info", "org/smal"]) == 3
    assert "hint: nearest: org/small" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["argument", "option", "variable"])
def test_info_tells_what_a_folder_holds(capsys: Captured, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    model = golden("llama3")
    if how == "variable":
        monkeypatch.setenv("TGEN_MODEL", model)
    facts = json.loads(output(capsys, "info", "--json", *{"argument": [model], "option": ["-m", model], "variable": []}[how]))
    config = json.loads((GOLDEN / "llama3" / "config.json").read_text())
    assert facts["folder"] == model
    assert facts["layers"] == config["num_hidden_layers"]
    assert facts["vocabulary"] == config["vocab_size"]
    assert facts["context"] == config["max_position_embeddings"]
    assert facts["defaults"]["top_k"] == 40
    assert facts["set_by_model"] == []
    assert facts["runs"] is True
    if how == "argument":
        lines = output(capsys, "info", model).splitlines()
        assert len({line.index(line.split("  ")[-1]) for line in lines}) <= 2  # two columns
        assert lines[-1].split() == ["runs", "yes"]


def test_info_shows_the_rest_of_a_folder_without_a_tokenizer(capsys: Captured, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("gpt2")
    (folder / "tokenizer.json").unlink()
    assert main.run(["info", str(folder), "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["runs"] is False
    assert captured.err.startswith(f"error: no tokenizer.json in {folder}\nhint: ")


def test_a_broken_folder_is_an_error(capsys: Captured, tmp_path: Path) -> None:
    assert main.run(["info", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: no config.json in {tmp_path}")


@pytest.mark.parametrize("text", ["Once upon a time", "naïve 日本 👩‍👩‍👧 \x1b[1m", "tab\tnew\n\nline  ", "[/INST] [bold] :smile:"])
def test_tokens_and_back(capsys: Captured, text: str) -> None:
    model = ("-m", golden("gpt2"))
    ids = output(capsys, "tokenize", text, "--ids", *model)
    rows = [line.split("\t") for line in output(capsys, "tokenize", text, *model).splitlines()]
    assert [row[0] for row in rows] == ids.split()
    assert json.loads(output(capsys, "tokenize", text, "--json", *model)) == {
        "ids": [int(row[0]) for row in rows],
        "pieces": [row[1] for row in rows],
    }
    assert output(capsys, "tokenize", ids, "--decode", *model) == text
    assert json.loads(output(capsys, "tokenize", ids.replace(" ", ","), "--decode", "--json", *model))["text"] == text


@pytest.mark.parametrize("word", ["x", "-1", "1.5", "999", "٣", "9" * 5000])
def test_what_is_no_id_is_named(capsys: Captured, word: str) -> None:
    assert main.run(["tokenize", "-m", golden("gpt2"), "--decode", "--", f"1 {word}"]) == 2
    message = capsys.readouterr().err
    assert f"'{word[:100]}" in message  # a long one is cut in the middle
    assert f"{word[-100:]}' is not a token id" in message


def test_generation_settings_that_are_not_honoured_are_named(capsys: Captured, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("llama3")
    (folder / "generation_config.json").write_text('{"typical_p": 0.9, "eta_cutoff": 0.0, "guidance_scale": null}')
    assert main.run(["info", str(folder)]) == 0
    assert "sets what tgen does not do: typical_p; the text may differ" in capsys.readouterr().err
