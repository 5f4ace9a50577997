"""--adapter on command lines: it changes what a model writes, by its scale, and whatever cannot be put onto a model is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.conftest import GOLDEN
from tgen.executors.native.library import load

BASE, ADAPTER, OTHER = (GOLDEN / name for name in ("granite", "adapters/patterns", "adapters/head"))
GREEDY = ["-n", "12", "--temperature", "0", "--ignore-eos", "abc"]
GIVEN: list[list[str]] = [[], ["--adapter", str(ADAPTER)]]
EXECUTORS = ["torch", "native"] if load().library is not None else ["torch"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_it_changes_the_text_by_its_scale(executor: str, ask: Ask) -> None:
    def text(*adapters: str) -> str:
        given = [word for adapter in adapters for word in ("--adapter", adapter)]
        return ask("generate", "-m", BASE, "--executor", executor, "--dtype", "float32", *given, *GREEDY).out

    whole = text(str(ADAPTER))
    assert whole != text()
    assert text(f"{ADAPTER}=0") == text()
    assert text(f"{ADAPTER}=0.5", f"{ADAPTER}=0.5") == whole
    assert text(str(ADAPTER), str(OTHER)) != whole


def test_every_command_that_runs_a_model_takes_it(ask: Ask) -> None:
    text = "the cat sat"
    for command in (["score"], ["explain", "-n", "2", "--seed", "1", "--json"], ["attention", "--json"], ["embed"]):
        without, beside = (ask(*command, "-m", BASE, *given, text).out for given in GIVEN)
        assert without != beside, command
    line = json.dumps({"prompt": "abc"}).encode()
    answers = [ask("batch", "-m", BASE, *given, *GREEDY[:-1], stdin=line).json["choices"][0]["text"] for given in GIVEN]
    assert answers[0] != answers[1] == ask("generate", "-m", BASE, "--adapter", ADAPTER, *GREEDY).out


def test_an_adapter_s_folder_is_a_model(ask: Ask, tmp_path: Path) -> None:
    folder = shutil.copytree(ADAPTER, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(BASE)}))
    assert ask("generate", "-m", folder, *GREEDY).out == ask("generate", "-m", BASE, "--adapter", ADAPTER, *GREEDY).out
    assert ask("info", folder).out


@pytest.mark.parametrize(
    ("named", "code", "message"),
    [
        ("missing", 3, "no adapter 'missing'"),
        ("a/b", 3, "`tgen pull a/b` fetches it"),
        (str(ADAPTER / "adapter_config.json"), 3, "adapter_config.json is not an adapter"),
        (str(GOLDEN / "gpt2"), 3, "gpt2 is not an adapter: no adapter_config.json in"),
        (f"{ADAPTER}=much", 2, "'much' is not a scale"),
        (str(GOLDEN / "adapters" / "fused"), 3, "changes transformer.h.0.attn.c_attn.bias, which the model does not have"),
    ],
)
def test_what_is_no_adapter_for_the_model_is_named(named: str, code: int, message: str, ask: Ask) -> None:
    assert message in ask("generate", "-m", BASE, "--adapter", named, *GREEDY, code=code).err


def test_a_gguf_file_takes_no_adapter(ask: Ask, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from tests.checkpoint.gguf_files import write_gguf

    path = tmp_path / "granite.gguf"
    write_gguf(BASE, path)
    assert ask("generate", "-m", path, *GREEDY).err == ""
    said = ask("generate", "-m", path, "--adapter", ADAPTER, *GREEDY, code=3)
    assert said.err.startswith(f"error: an adapter changes a Hugging Face folder, and {path} is a GGUF file\nhint: name the folder")


def test_several_served_models_take_no_adapter(ask: Ask) -> None:
    said = ask("serve", "-m", BASE, "-m", GOLDEN / "gpt2", "--adapter", ADAPTER, code=2)
    assert "--adapter is for one model, and there are several -m" in said.err
