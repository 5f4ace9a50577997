"""Adapters: the logits are peft's, a base is found or named, and what is not implemented is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import GOLDEN
from tgen.checkpoint.adapters.opening import open_adapters
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.engine.prompt_cache import fingerprint
from tgen.errors import CheckpointError, TgenError, UsageError
from tgen.executors.native.library import load
from tgen.executors.native.open import open_executor
from tgen.executors.native.packed_cache import _name
from tgen.executors.session import LoadedModel
from tgen.executors.torch.load import load_model
from tgen.executors.torch.session import TorchExecutor
from tgen.options import RunOptions

ADAPTERS = sorted(path.name for path in (GOLDEN / "adapters").iterdir())
EXECUTORS = ["torch", "native"] if load().library is not None else ["torch"]


def folder(name: str) -> Path:
    return GOLDEN / "adapters" / name


def config_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder(name) / "adapter_config.json").read_text("utf-8"))
    return values


def opened(name: str, *scales: float) -> Checkpoint:
    """The base of a golden adapter, with the adapter at these scales."""
    base = config_of(name)["base_model_name_or_path"].removeprefix("org/")
    return open_checkpoint(GOLDEN / base, adapters=[f"{folder(name)}={scale}" for scale in scales])


def logits(model: LoadedModel, name: str) -> np.ndarray:
    reference = np.load(folder(name) / "golden.npz")
    ids: list[int] = reference["ids"].tolist()
    if name == "encoder":
        return model.masked_logits([ids], [range(len(ids))])
    session = model.open()
    session.admit([reference["source"].tolist() if "source" in reference else None])
    return np.concatenate([session.extend([[token]]) for token in ids])


def run(checkpoint: Checkpoint, executor: str, name: str) -> np.ndarray:
    if executor == "native":
        return logits(open_executor(checkpoint, RunOptions(dtype="float32", threads=1)), name)
    return logits(TorchExecutor(load_model(checkpoint, torch.device("cpu"), torch.float32)), name)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_equal_those_of_peft(name: str, executor: str) -> None:
    assert distance(run(opened(name, 1.0), executor, name), np.load(folder(name) / "golden.npz")["logits"]) < 1e-5


def test_adapters_add_up_by_their_scales() -> None:
    whole = run(opened("patterns", 1.0), "torch", "patterns")
    assert distance(run(opened("patterns", 0.25, 0.75), "torch", "patterns"), whole) < 1e-5
    assert distance(run(opened("patterns", 0.0), "torch", "patterns"), run(opened("patterns"), "torch", "patterns")) < 1e-6
    assert distance(run(opened("patterns", 0.5), "torch", "patterns"), whole) > 1e-3


def test_caches_know_the_adapter_and_its_scale() -> None:
    checkpoints = [opened("patterns"), opened("patterns", 1.0), opened("patterns", 0.5)]
    assert len({fingerprint(one) for one in checkpoints}) == 3
    assert len({_name(one, "int8", lambda path: path.name) for one in checkpoints}) == 3


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of an adapter's folder."""
    return shutil.copytree(folder("patterns"), tmp_path / "copy")


def change(place: Path, **values: Any) -> Path:
    path = place / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")
    return place


def test_an_adapter_finds_its_base(copy: Path) -> None:
    change(copy, base_model_name_or_path=str(GOLDEN / "granite"))
    checkpoint = open_checkpoint(copy)
    assert checkpoint.folder == checkpoint.texts == GOLDEN / "granite"
    (copy / "tokenizer.json").touch()
    assert open_adapters(copy).texts == copy  # what it was trained with


def test_a_base_that_is_not_here_is_named(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(CheckpointError, match="is an adapter for org/granite, which is not on this machine") as caught:
        open_checkpoint(copy)
    assert "`tgen pull org/granite` fetches it" in str(caught.value.hint)
    shutil.copytree(GOLDEN / "granite", tmp_path / "hub/models--org--granite/snapshots/abc")
    assert open_checkpoint(copy).folder.name == "abc"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA' is not implemented"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not implemented"),
        ({"target_parameters": ["experts"]}, "target_parameters = .* is not implemented"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices = .* is not implemented"),
        ({"a_new_key": 3}, "a_new_key = 3 is not implemented"),
        ({"r": 0}, "r = '0' is not a whole number above 0"),
        ({"lora_alpha": "x"}, "lora_alpha = 'x' is not a number above 0"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern = .* is not a mapping from regular expressions"),
        ({"r": 5}, "has rank 2 for .*, its config says 5"),
        ({"use_dora": True}, "lacks a matching use_dora"),
    ],
)
def test_what_is_wrong_or_not_implemented_is_named(copy: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(GOLDEN / "granite", adapters=[str(change(copy, **values))])


@pytest.mark.parametrize("base", ["llama2", "gpt2"])
def test_another_base_is_noticed(base: str) -> None:
    with pytest.raises(TgenError) as caught:
        open_checkpoint(GOLDEN / base, adapters=[str(folder("head"))])
    assert "the adapter" in caught.value.message


def test_exaone_is_found_under_llamas_names(tmp_path: Path) -> None:
    """transformers 5 calls its modules as Llama's, and so does an adapter that was trained there."""
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2}
    changed = []
    for number, names in enumerate(
        (
            ("transformer.h.0.attn.attention.q_proj", "transformer.h.0.mlp.c_proj"),
            ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"),
        )
    ):
        place = tmp_path / str(number)
        place.mkdir()
        tensors: dict[str, torch.Tensor] = {}
        for module, inputs in zip(names, (16, 12), strict=True):
            ends = (("lora_A", (1, inputs)), ("lora_B", (16, 1)))
            tensors |= {f"base_model.model.{module}.{end}.weight": torch.full(shape, 0.3) for end, shape in ends}
        save_file(tensors, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text(json.dumps(config))
        changed.append(load_model(open_checkpoint(GOLDEN / "exaone", adapters=[str(place)]), torch.device("cpu"), torch.float32))
    plain = load_model(open_checkpoint(GOLDEN / "exaone"), torch.device("cpu"), torch.float32).state_dict()
    one, other = (model.state_dict() for model in changed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sum(not torch.equal(one[name], plain[name]) for name in one) == 2


@pytest.mark.parametrize("scale", ["x", "nan", "inf", ""])
def test_a_bad_scale_is_named(scale: str) -> None:
    with pytest.raises(UsageError, match=f"'{scale}' is not a scale"):
        opened_with = f"{folder('head')}={scale}"
        open_checkpoint(GOLDEN / "granite", adapters=[opened_with])
