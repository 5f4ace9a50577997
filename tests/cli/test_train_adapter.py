"""`tgen train --adapter`: peft loads what it writes and computes the same logits, a run resumes, and what does not fit is named."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.torch.load import load_model
from tgen.executors.torch.session import TorchExecutor

WORDS = "the a fox king wolf tower river said went saw and but old red small".split()
SHORT = "--batch 2 --sequence 8 --no-compile -t 1 --seed 3 --validation 0.2".split()
# Matrices apart, fused in three ways, stored the other way round, with experts, with windows, without attention in most layers.
BASES = ["llama3", "phi3", "falcon_grouped", "bloom", "gpt_neox", "gpt2", "gemma2", "qwen3_moe", "deepseek_v2", "lfm2", "gpt_oss"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number format is chosen by measuring, and a busy machine may choose differently each time."""
    monkeypatch.setattr("tgen.train.trainer.bfloat16_is_faster", lambda _: False)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    choose, path = random.Random(0), tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(choose.choices(WORDS, k=20)) for _ in range(20)))
    return path


def logits(folder: Path, **options: Any) -> np.ndarray:
    model = TorchExecutor(load_model(open_checkpoint(folder, **options), torch.device("cpu"), torch.float32))
    session = model.open()
    session.admit([None])
    return np.concatenate([session.extend([[token]]) for token in range(3, 15)])


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", BASES)
def test_peft_loads_the_adapter_and_computes_the_same(name: str, ask: Ask, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    ask("train", text, "--base", golden(name), "--adapter", "-o", out, "--steps", "3", "--rank", "3", "--learning-rate", "0.1", *SHORT)
    found = logits(out)
    assert distance(logits(GOLDEN / name), found) > 1e-3  # it learned something
    assert distance(logits(GOLDEN / name, adapters=[str(out)]), found) < 1e-6
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each of these libraries asks the other for what it is about to lose
        plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
        base = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32, **plain)
        model = peft.PeftModel.from_pretrained(base, out)
        expected = model(torch.arange(3, 15)[None]).logits[0].numpy()
    assert distance(found, expected) < 1e-5
    learned = {key for key in model.state_dict() if "lora_" in key}
    assert {key.replace(".default", "") for key in learned} == load_file(out / "adapter_model.safetensors").keys()


def test_a_run_that_is_resumed_ends_as_if_nothing_had_been(ask: Ask, text: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["train", text, "--base", golden("llama3"), "--adapter", *SHORT]
    for name, steps in (("whole", 6), ("cut", 3)):
        ask(*arguments, "-o", tmp_path / name, "--steps", str(steps), "--every", "3")
    said = ask("train", "--resume", "-o", tmp_path / "cut", "--steps", "6", "--no-compile", "-t", "1")
    assert "step 6," in said.err
    assert f"done: tgen generate --model {tmp_path / 'cut'} " in said.err
    history = [[line.split(",")[0] for line in (tmp_path / name / "loss.csv").read_text().splitlines()] for name in ("whole", "cut")]
    assert history[0] == history[1]
    states = [torch.load(tmp_path / name / "training" / "state.pt", weights_only=True)["model"] for name in ("whole", "cut")]
    assert states[0].keys() == states[1].keys()
    assert sum(tensor.numel() for tensor in states[1].values()) < 10_000  # no weight of the base


def test_conversations_are_written_with_the_base_s_template(ask: Ask, tmp_path: Path) -> None:
    base, talks = shutil.copytree(GOLDEN / "llama3", tmp_path / "base"), tmp_path / "talks.jsonl"
    says = [{"role": "user", "content": "fox?"}, {"role": "assistant", "content": "wolf"}]
    talks.write_text("".join(json.dumps({"messages": says}) + "\n" for _ in range(40)))
    said = ask("train", talks, "--base", base, "--adapter", "-o", tmp_path / "out", "--steps", "1", *SHORT, code=2)
    assert "talks.jsonl, line 1: base has no chat template" in said.err
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    (base / "chat_template.jinja").write_text(template)
    ask("train", talks, "--base", base, "--adapter", "-o", tmp_path / "out", "--steps", "1", *SHORT)
    ids = np.load(tmp_path / "out" / "training" / "train.npy")
    said = ask("tokenize", "-m", base, "--decode", " ".join(map(str, ids.tolist()[: ids.tolist().index(0)])))
    assert said.out == "[user]fox?[assistant]wolf"
    assert ask("generate", "--chat", "-m", tmp_path / "out", "-n", "2", "--temperature", "0", "fox?").err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter"], "--adapter needs text files, and --base with the model to adapt"),
        (["--rank", "4"], "--rank is for a run with --adapter"),
        (["--base", golden("llama3"), "--alpha", "4"], "--alpha is for a run with --adapter"),
        (["--adapter", "--base", golden("llama3"), "--rank", "0"], "--rank must be 1 to 4096, not 0"),
        (["--adapter", "--base", golden("llama3"), "--alpha", "0"], "--alpha must be above 0, not 0"),
        (["--adapter", "--base", golden("llama3"), "--layers", "4"], "--adapter and --layers exclude each other"),
        (["--adapter", "--base", golden("llama3"), "--base-share", "0.5"], "--adapter and --base-share exclude each other"),
        (
            ["--adapter", "--base", golden("llama3"), "--sequence", "65"],
            "--sequence 65 is longer than the context of --base llama3, 64 tokens",
        ),
        (["--adapter", "--base", golden("t5")], "--base t5 is encoder-decoder"),
        (["--adapter", "--base", golden("bert")], "--base bert is encoder-only"),
    ],
)
def test_what_does_not_fit_is_named(arguments: list[str], message: str, ask: Ask, text: Path, tmp_path: Path) -> None:
    said = ask("train", text, "-o", tmp_path / "out", "--steps", "1", *arguments, code=2)
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_gone_is_named(ask: Ask, text: Path, tmp_path: Path) -> None:
    base, out = shutil.copytree(GOLDEN / "llama3", tmp_path / "base"), tmp_path / "out"
    ask("train", text, "--base", base, "--adapter", "-o", out, "--steps", "1", *SHORT)
    said = ask("train", text, "--base", out, "--adapter", "-o", tmp_path / "other", "--steps", "1", *SHORT, code=2)
    assert f"--base {out.name} is an adapter" in said.err
    shutil.rmtree(base)
    said = ask("train", "--resume", "-o", out, "--steps", "2", code=3)
    assert f"no model '{base}'" in said.err
