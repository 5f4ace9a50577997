"""Attention maps of every golden: the recorded maps are right, and recording changes nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.conftest import DECODERS, GOLDENS, config_of, golden_model
from tests.engine.scripted import columns
from tests.sweeps import KINDS, sweep
from tgen.executors.torch.attention import Attention
from tgen.executors.torch.maps import Maps, attention_maps, recording
from tgen.executors.torch.session import TorchExecutor
from tgen.executors.torch.transformer import Transformer
from tgen.options import GenerationOptions
from tgen.sampling.sampler import Sampler

IDS, SOURCE = [10, 14, 18, 22, 26, 30, 34, 38], [12, 20, 28]


def maps_of(name: str, model: Transformer | None = None) -> Maps:
    model = golden_model(name) if model is None else model
    return attention_maps(model, IDS, SOURCE if model.spec.encoder and model.spec.decoder else None)


@pytest.mark.parametrize("name", GOLDENS)
def test_rows_sum_to_one_and_a_decoder_never_looks_ahead(name: str) -> None:
    spec, maps = golden_model(name).spec, maps_of(name)
    kinds = {"decoder-only": {"decoder"}, "encoder-only": {"encoder"}, "encoder-decoder": {"encoder", "decoder", "cross"}}
    assert set(maps) == (kinds[spec.kind] if any(stack.attentions for stack in spec.stacks.values()) else set())
    both = spec.kind == "encoder-decoder"
    lengths = {"encoder": (len(SOURCE), len(SOURCE)), "cross": (len(IDS), len(SOURCE)), "decoder": (len(IDS), len(IDS))}
    for kind, layers in maps.items():
        stack = spec.encoder if kind == "encoder" else spec.decoder
        assert stack is not None
        for weights, attention in zip(layers, stack.attentions * stack.rounds, strict=True):
            assert weights.shape == (attention.heads, *(lengths[kind] if both else (len(IDS), len(IDS))))
            assert (weights.sum(axis=-1) < 1).all() if attention.sinks else weights.sum(axis=-1) == pytest.approx(1, abs=1e-5)
            assert weights.min() >= 0
            above = np.triu(weights, 1)
            assert (above == 0).all() if kind == "decoder" else above.max() > 0
            if attention.window is not None and kind == "decoder":
                assert (np.tril(weights, -attention.window) == 0).all()


def written(name: str, model: Transformer) -> list[int]:
    """Tokens sampled from the model."""
    both = model.spec.encoder is not None
    prompt = [config_of(name)["decoder_start_token_id"]] if both else IDS
    options = GenerationOptions(temperature=1.5)
    drawn = columns(TorchExecutor(model), prompt, [Sampler(options, 1, 0, prompt)], 8, SOURCE if both else None)
    return [column[0] for column in drawn]


@pytest.mark.parametrize("name", sweep(DECODERS, KINDS.__contains__))
def test_recording_changes_nothing(name: str) -> None:
    """The logits, the texts before and after, and the model's modules stay the same."""
    model = golden_model(name)
    before = [module.attend for module in model.modules() if isinstance(module, Attention)]
    text = written(name, model)
    with recording(model) as recorder:
        assert written(name, model) == text
    assert bool(recorder.maps) == any(stack.attentions for stack in model.spec.stacks.values())
    assert [module.attend for module in model.modules() if isinstance(module, Attention)] == before
    assert written(name, model) == text


def test_an_error_leaves_nothing_behind_either() -> None:
    model = golden_model("gpt2")
    before = [module.attend for module in model.modules() if isinstance(module, Attention)]
    with pytest.raises(KeyError), recording(model):
        raise KeyError
    assert [module.attend for module in model.modules() if isinstance(module, Attention)] == before


def test_a_second_pass_replaces_the_first() -> None:
    model = golden_model("gpt2")
    with recording(model) as recorder, torch.inference_mode():
        model(torch.tensor([IDS]))
        model(torch.tensor([IDS[:3]]))
    assert [layer.shape for layer in recorder.maps["decoder"]] == [(1, 4, 3, 3)] * 2


def test_the_maps_are_those_that_the_model_uses() -> None:
    """A layer whose queries are zero attends to all keys equally; the layer before it does not change."""
    model = copy.deepcopy(golden_model("gpt2"))
    first, second = maps_of("gpt2")["decoder"]
    with torch.no_grad():
        model.get_parameter("decoder.layers.1.mixer.q.weight").mul_(0)
        model.get_parameter("decoder.layers.1.mixer.q.bias").mul_(0)
    changed = maps_of("gpt2", model)["decoder"]
    assert changed[0] == pytest.approx(first)
    even = np.tril(np.ones((8, 8))) / np.arange(1, 9)[:, None]
    assert changed[1] == pytest.approx(np.broadcast_to(even, second.shape), abs=1e-6)
