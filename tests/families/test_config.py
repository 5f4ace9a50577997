"""config.json in both dialects, and whatever else may stand in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import GOLDEN, GOLDENS
from tgen.checkpoint.folder import open_checkpoint
from tgen.checkpoint.load import load_model
from tgen.errors import TgenError, UnsupportedError
from tgen.families.config import Config
from tgen.families.registry import FAMILIES, find_family
from tgen.spec import Llama3Scaling, ModelSpec

HUGE = 10**400
NESTED: dict[str, Any] = {"a": [{}]}
WRONG = ["", "x", "12", None, True, False, -1, 0, 1, 3, 7.5, 1e308, float("nan"), float("inf"), 2**40, HUGE, [], [1], NESTED, [NESTED]]


def values_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((GOLDEN / name / "config.json").read_text())
    return values


def spec_of(values: dict[str, Any]) -> ModelSpec:
    config = Config(values)
    return find_family(config.model_type).spec(config)


def damaged(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config with every value, nested ones too, exchanged for every wrong one."""
    for key, value in values.items():
        for wrong in WRONG:
            yield {**values, key: wrong}
        if isinstance(value, dict):
            yield from ({**values, key: inner} for inner in damaged(value))


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama3", "qwen2", "qwen2_window", "qwen3"])
def test_no_value_brings_it_down(name: str, copy_golden: Callable[[str], Path]) -> None:
    """Whatever stands in config.json: the model runs, or one of our own errors says why it does not."""
    folder = copy_golden(name)
    messages: set[str] = set()
    tried: set[ModelSpec] = set()
    for values in damaged(values_of(name)):
        (folder / "config.json").write_text(json.dumps(values))
        try:
            checkpoint = open_checkpoint(folder)
            if checkpoint.spec not in tried:
                model = load_model(checkpoint, torch.device("cpu"), torch.float32)
                assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, model.spec.width)
            tried.add(checkpoint.spec)
        except TgenError as error:
            assert error.hint, error.message
            assert len(error.message) < 300
            messages.add(error.message)
    assert len(messages) > 50


@pytest.mark.parametrize("name", GOLDENS)
def test_every_key_that_transformers_writes_is_understood(name: str) -> None:
    assert open_checkpoint(GOLDEN / name).unread == {}


def test_what_nobody_read_is_reported() -> None:
    values = values_of("llama3")
    values |= {"attn_logit_softcapping": 50.0, "sliding_window": 4, "unused": None, "off": False}
    values["rope_parameters"] = {**values["rope_parameters"], "attention_factor": 2.0}
    config = Config(values)
    find_family("llama").spec(config)
    assert config.unread() == {"attn_logit_softcapping": 50.0, "sliding_window": 4, "rope_parameters.attention_factor": 2.0}


@pytest.mark.parametrize("name", ["llama3", "qwen3", "qwen2_window"])
def test_both_dialects_give_one_spec(name: str) -> None:
    new = values_of(name)
    old = copy.deepcopy(new)
    rope = old.pop("rope_parameters")
    old.pop("layer_types", None)
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    for spelling in ("rope_type", "type"):
        old["rope_scaling"] = {spelling: kind, **rope} if rope else None
        assert spec_of(old) == spec_of(new)


def test_rope_of_llama_3() -> None:
    rope = spec_of(values_of("llama3")).decoder.layers[0].attention.rope
    assert rope is not None
    assert (rope.dim, rope.theta, rope.scaling) == (8, 50.0, Llama3Scaling(4.0, 1.0, 4.0, 16))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("mistral", {}, [6, 6]),
        ("mistral", {"sliding_window": None}, [None, None]),
        ("llama3", {"sliding_window": 6}, [None, None]),
        ("qwen2", {}, [None, None]),
        ("qwen2", {"use_sliding_window": True}, [None, None]),  # starts at layer 28
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, [None, 6]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}, [6, 6]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": None}, [None, None]),
        ("qwen2_window", {}, [None, 5, 5]),
        ("qwen2_window", {"layer_types": None}, [None, 5, 5]),
        ("qwen2_window", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, [5, None, 5]),
    ],
)
def test_windows(name: str, changes: dict[str, Any], expected: list[int | None]) -> None:
    spec = spec_of({**values_of(name), **changes})
    assert [layer.attention.window for layer in spec.decoder.layers] == expected


@pytest.mark.parametrize(("asked", "nearest"), [("lama", "llama"), ("mixtral", "mistral"), ("qwen2_moe", "qwen2"), ("gpt_neo", "gpt2")])
def test_an_unknown_family_names_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(UnsupportedError, match=asked) as caught:
        find_family(asked)
    assert f"nearest that is: {nearest};" in str(caught.value.hint)
    assert all(name in str(caught.value.hint) for name in FAMILIES)
