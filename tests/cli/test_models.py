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
from tgen.options import FROM_MODEL

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
    (other / "config.json").write_text('{"model_type": "retnet"}')
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
    assert "model_type = 'retnet' is not implemented" in lines[1]
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
    facts = json.loads(captured.out)
    assert facts["runs"] is False
    assert facts["executor"] == "native"
    assert captured.err.startswith(f"error: no tokenizer in {folder}\nhint: ")


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
    (folder / "generation_config.json").write_text('{"eta_cutoff": 0.9, "epsilon_cutoff": 0.0, "guidance_scale": null}')
    assert main.run(["info", str(folder)]) == 0
    assert "sets options that tgen does not implement: eta_cutoff; the text may differ" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["english-french", "storyteller", "gpt2", "marian", "t5"])
def test_the_defaults_are_what_generate_uses(capsys: Captured, copy_golden: Callable[[str], Path], model: str) -> None:
    """With generation_config.json and without."""
    place = model
    if model not in ("english-french", "storyteller"):
        folder = copy_golden(model)
        (folder / "generation_config.json").unlink()
        place = str(folder)
    facts = json.loads(output(capsys, "info", place, "--json"))
    assert main.run(["generate", "Once", "-m", place, "-v"]) == 0
    lines = [line.split() for line in capsys.readouterr().err.splitlines() if line.startswith("--")]
    used = {
        words[0].removeprefix("--").replace("-", "_"): (float(words[1]), words[2]) for words in lines if words[1].replace(".", "").isdigit()
    }
    assert {name: value for name, value in facts["defaults"].items() if name != "temperature"} == {
        name: used[name][0] for name in FROM_MODEL if name in used and name != "temperature"
    }
    assert set(facts["set_by_model"]) >= {name for name, (_, origin) in used.items() if origin == "model"}
    if model == "english-french":
        assert facts["defaults"] == {
            "max_new_tokens": 95, "min_new_tokens": 0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 4,
            "temperature": 0.0,
        }  # fmt: skip


# Worked out by hand from config.json, matrix by matrix; the caches in float32, as torch has them on a CPU.
FIGURES = {
    "gpt2": (288 * 24 + 64 * 24 + 2 * (24 * 72 + 72 + 24 * 24 + 24 + 2 * 24 * 96 + 96 + 24 + 4 * 24) + 48, 2 * 2 * 24 * 4),
    "llama3": (288 * 16 + 2 * (2 * 16 * 32 + 2 * 16 * 16 + 3 * 16 * 20 + 2 * 16) + 16, 2 * 2 * 16 * 4),
    "gemma3": (288 * 16 + 4 * (2 * 16 * 24 + 2 * 16 * 12 + 3 * 16 * 20 + 4 * 16 + 2 * 6) + 16, 2 * 4 * 12 * 4),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures(capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Parameters, and the cache in the number format that the model would run in on this machine."""
    parameters, cache = FIGURES[name]
    folder = GOLDEN / name
    formats = "tgen.executors.formats"
    monkeypatch.setattr(f"{formats}.has_accelerator", lambda: False)
    asked = ("info", str(folder), "--executor", "torch", "--json")
    facts = json.loads(output(capsys, *asked))
    tensors = [header for path in folder.glob("*.safetensors") for header in headers(path)]
    assert facts["weight_bytes"] == sum(end - start for start, end in tensors)
    assert (facts["parameters"], facts["computes_in"], facts["cache_bytes_per_token"]) == (parameters, "float32", cache)
    stored, size = ("bfloat16", 2) if name == "gemma3" else ("float32", 4)
    for accelerator, free in (True, 10**12), (False, 4 * parameters):
        monkeypatch.setattr(f"{formats}.has_accelerator", lambda accelerator=accelerator: accelerator)
        monkeypatch.setattr(f"{formats}.available_memory", lambda free=free: free)
        facts = json.loads(output(capsys, *asked))
        assert (facts["computes_in"], facts["cache_bytes_per_token"]) == (stored, cache * size // 4)
        facts = json.loads(output(capsys, *asked, "--dtype", "float16"))
        assert (facts["computes_in"], facts["cache_bytes_per_token"]) == ("float16", cache // 2)


def test_a_mixture_of_experts(capsys: Captured) -> None:
    """What takes part in a token, and what the memory must hold: all experts. Worked out by hand, as above."""
    facts = json.loads(output(capsys, "info", str(GOLDEN / "qwen2_moe"), "--json"))
    attention, expert = 2 * 16 * 16 + 2 * 16 * 8 + 16 + 2 * 8, 3 * 16 * 6
    mixture = 4 * 16 + 4 * expert + 3 * 16 * 14 + 16
    whole = 2 * 40 * 16 + 3 * (attention + 2 * 16) + 2 * 3 * 16 * 12 + mixture + 16
    assert (facts["parameters"], facts["active_parameters"]) == (whole, whole - 2 * expert)
    assert facts["feed_forward"] == "12, silu, gated; 4 experts, 2 for each token: 6, silu, gated, and 14 for every token"
    wide = 3 * (16 + 2 * 8 + 2 * 16) + 16 + 4 * 16 + 16  # vectors and what chooses experts stay in float32
    assert facts["memory_of_weights"] == 2 * whole + 2 * wide
    facts = json.loads(output(capsys, "info", str(GOLDEN / "gpt2"), "--json"))
    assert "active_parameters" not in facts


def headers(path: Path) -> list[tuple[int, int]]:
    """Where the tensors of a safetensors file begin and end."""
    data = path.read_bytes()
    found = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [tuple(value["data_offsets"]) for key, value in found.items() if key != "__metadata__"]


def test_an_encoder_has_no_defaults_for_writing(capsys: Captured) -> None:
    facts = json.loads(output(capsys, "info", golden("bert"), "--json"))
    assert facts["cache_bytes_per_token"] == 0
    assert "defaults" not in facts
