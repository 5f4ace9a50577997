"""`tgen embed`: a vector for each line, whatever its neighbours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, golden_model
from tgen.text.tokenizer import Tokenizer

LINES = ["one", "", "quite a few more words, été", "two words", "x"]
STDIN = "\n".join(LINES).encode()


def vectors(out: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in out.splitlines()])


def states(name: str, text: str) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = golden_model(name).encode(torch.tensor([Tokenizer.load(GOLDEN / name).encode(text)]))[0].numpy()
    return found


@pytest.mark.parametrize("name", ["bert", "bert_headless", "roberta"])
def test_a_batch_of_unequal_lines_equals_one_by_one(ask: Ask, name: str) -> None:
    out = ask("embed", "-m", golden(name), "--dtype", "float32", stdin=STDIN).out
    listed = [json.loads(line) for line in out.splitlines()]
    assert [(one["index"], one["text"]) for one in listed] == list(enumerate(LINES))
    for line, vector in zip(LINES, vectors(out), strict=True):
        expected = states(name, line).mean(axis=0) if line else np.zeros(16)
        assert vector == pytest.approx(expected, abs=1e-5)
        assert vectors(ask("embed", line, "-m", golden(name), "--dtype", "float32").out)[0] == pytest.approx(expected, abs=1e-5)


def test_pooling_and_length(ask: Ask) -> None:
    first = vectors(ask("embed", "-m", golden("bert"), "--pooling", "first", stdin=STDIN).out)
    assert first[2] == pytest.approx(states("bert", LINES[2])[0], abs=1e-5)
    normed = vectors(ask("embed", "-m", golden("bert"), "--pooling", "first", "--normalize", stdin=STDIN).out)
    assert np.linalg.norm(normed, axis=1) == pytest.approx([1, 0, 1, 1, 1], abs=1e-5)
    assert normed[2] * np.linalg.norm(first[2]) == pytest.approx(first[2], abs=1e-5)


@pytest.fixture
def sentence_folder(copy_golden: Callable[[str], Path]) -> Path:
    folder = copy_golden("bert")
    (folder / "1_Pooling").mkdir()
    files: dict[str, Any] = {
        "modules.json": [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")],
        "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        "sentence_bert_config.json": {"max_seq_length": 5, "do_lower_case": True},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def test_a_sentence_transformers_folder(ask: Ask, sentence_folder: Path) -> None:
    said = ask("embed", "ONE\nmuch too long", "-m", sentence_folder)
    expected = states("bert", "one")[0]
    assert vectors(said.out)[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert json.loads(said.out.splitlines()[0])["text"] == "ONE"
    assert said.err == "warning: line 2 has 10 tokens, the model reads 5; its end is left out\n"
    assert vectors(ask("embed", "one", "-m", sentence_folder, "--no-normalize").out)[0] == pytest.approx(expected, abs=1e-5)
    mean = vectors(ask("embed", "one", "-m", sentence_folder, "--pooling", "mean").out)[0]
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-5)
    (sentence_folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_attention": true}')
    assert "--pooling mean or first or last" in ask("embed", "one", "-m", sentence_folder, code=3).err


@pytest.fixture
def decoder_folder(copy_golden: Callable[[str], Path]) -> Path:
    """A folder such as Qwen3-Embedding's: a decoder without its head, whose names lack a prefix, and which reads its last token's state."""
    folder = copy_golden("olmo")
    tensors = {
        name.removeprefix("model."): one for name, one in load_file(folder / "model.safetensors").items() if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "1_Pooling").mkdir()
    prompts = {"prompts": {"query": "Query:", "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True, "include_prompt": True},
        "config_sentence_transformers.json": prompts,
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def decoder_states(text: str) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = golden_model("olmo")(torch.tensor([Tokenizer.load(GOLDEN / "olmo").encode(text)]))[0].numpy()
    return found


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_a_decoder_without_its_head(ask: Ask, decoder_folder: Path, executor: str) -> None:
    command = ("embed", "-m", decoder_folder, "--executor", executor)
    found = vectors(ask(*command, "one\na longer line").out)
    for text, vector in zip(("one", "a longer line"), found, strict=True):
        last = decoder_states(text)[-1]
        assert vector == pytest.approx(last / np.linalg.norm(last), abs=1e-5)
    asked = decoder_states("Query:one")[-1]
    assert vectors(ask(*command, "one", "--prompt-name", "query").out)[0] == pytest.approx(asked / np.linalg.norm(asked), abs=1e-5)
    assert vectors(ask(*command, "one", "--prompt-name", "document").out)[0] == pytest.approx(found[0], abs=1e-6)
    assert "its prompts: query, document" in ask(*command, "one", "--prompt-name", "x", code=2).err
    highest = vectors(ask(*command, "one", "--pooling", "max", "--no-normalize").out)[0]
    assert highest == pytest.approx(decoder_states("one").max(axis=0), abs=1e-5)


def test_the_head_is_missed_only_where_it_is_needed(ask: Ask, decoder_folder: Path) -> None:
    assert "the weights lack the tensor lm_head.weight" in ask("generate", "x", "-m", decoder_folder, code=3).err
    assert "vectors only" in ask("info", decoder_folder).out


@pytest.mark.parametrize("name", ["t5_flan", "umt5", "bart_scaled"])
def test_the_encoder_of_an_encoder_decoder_alone(ask: Ask, name: str, tmp_path: Path) -> None:
    """As in sentence-T5, whose folder holds no decoder."""
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    decoder = ("decoder.", "model.decoder.", "lm_head.", "final_logits_bias")
    tensors = load_file(folder / "model.safetensors")
    save_file({key: tensor for key, tensor in tensors.items() if not key.startswith(decoder)}, folder / "model.safetensors")
    found = vectors(ask("embed", "-m", folder, "--dtype", "float32", "--pooling", "mean", "--no-normalize", "one").out)
    assert found[0] == pytest.approx(states(name, "one").mean(axis=0), abs=1e-5)
    assert "is encoder-only, so it generates no text" in ask("generate", "-m", folder, "x", code=2).err


def test_a_prompt_may_not_count(ask: Ask, sentence_folder: Path) -> None:
    """By the folder's word; a matrix comes after the mean."""
    (sentence_folder / "2_Dense").mkdir()
    weight = np.arange(32, dtype=np.float32).reshape(2, 16) / 32
    save_numpy({"linear.weight": weight}, sentence_folder / "2_Dense" / "model.safetensors")
    files: dict[str, Any] = {
        "modules.json": [
            {"type": f"sentence_transformers.models.{name}", "path": path}
            for name, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
        ],
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "include_prompt": False},
        "2_Dense/config.json": {"activation_function": "torch.nn.modules.linear.Identity"},
        "sentence_bert_config.json": {},
        "config_sentence_transformers.json": {"prompts": {"query": "ask "}, "default_prompt_name": "query"},
    }
    for name, value in files.items():
        (sentence_folder / name).write_text(json.dumps(value))
    prompt = len(Tokenizer.load(GOLDEN / "bert").encode("ask "))
    expected = weight @ states("bert", "ask one")[prompt:].mean(axis=0)
    assert vectors(ask("embed", "one", "-m", sentence_folder).out)[0] == pytest.approx(expected, abs=1e-5)
    save_numpy({"linear.weight": weight[:, 1:].copy()}, sentence_folder / "2_Dense" / "model.safetensors")
    assert "a Dense module takes vectors of 15 numbers and gets 16" in ask("embed", "one", "-m", sentence_folder, code=3).err


def test_a_long_line_loses_its_end_and_is_named(ask: Ask) -> None:
    long = "x" * 70
    said = ask("embed", "-m", golden("bert"), stdin=f"a\n{long}\n{'x' * 64}\n".encode())
    assert said.err == "warning: line 2 has 70 tokens, the model reads 64; its end is left out\n"
    assert vectors(said.out)[1] == pytest.approx(vectors(said.out)[2])
    assert ask("embed", "-q", "-m", golden("bert"), long).err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "-m", golden("t5")], ["encoder-only or decoder-only; t5 is encoder-decoder"]),
        (["x", "-m", golden("bert"), "-f", "y"], ["as an argument or as --file, not both"]),
        (["-m", golden("bert"), "-f", "missing"], ["cannot read missing: No such file"]),
        (["a\n\udcff", "-m", golden("bert")], ["line 2 is not UTF-8 at byte 0", "iconv"]),
        (["x", "-m", golden("bert"), "--pooling", "min"], ["'min' is not one of 'mean', 'first', 'last'"]),
    ],
)
def test_what_cannot_be_embedded(ask: Ask, arguments: list[str], words: list[str]) -> None:
    err = ask("embed", *arguments, code=2).err
    assert [word for word in words if word not in err] == [], err
