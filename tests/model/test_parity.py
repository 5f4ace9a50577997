"""Every family gives the logits that transformers gives, whichever way they are computed.

The golden folders hold random numbers in every parameter, so that each one that is dropped, swapped or misread shows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.conftest import GOLDEN, GOLDENS, golden_model, golden_reference
from tgen.model.attention import Attend, Attention, fused_attend, plain_attend
from tgen.model.cache import Cache
from tgen.model.transformer import Transformer
from tgen.parameters import parameters
from tgen.spec import AttentionSpec, LayerSpec, ModelSpec

TOLERANCE = 1e-5

every_golden = pytest.mark.parametrize("name", GOLDENS)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def difference(found: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def full(model: Transformer, ids: np.ndarray, positions: np.ndarray | None = None) -> torch.Tensor:
    """Logits of all ids at once, without a cache."""
    return model.logits(model(torch.from_numpy(ids), None if positions is None else torch.from_numpy(positions)))


def read(model: Transformer, cache: Cache, ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """Logits of a further block, [rows, n, vocab]."""
    return model.logits(model(torch.from_numpy(ids), torch.from_numpy(positions), cache))


def new_cache(model: Transformer, rows: int = 1) -> Cache:
    """A cache of two slots: every test makes it grow."""
    return Cache(model.spec, rows, 2, torch.device("cpu"), torch.float32)


def cached(model: Transformer, ids: np.ndarray, edges: Iterable[int]) -> torch.Tensor:
    """Logits of one sequence, read in blocks from edge to edge."""
    cache, places = new_cache(model), np.arange(len(ids))[None]
    blocks = [read(model, cache, ids[None, a:b], places[:, a:b]) for a, b in pairwise(edges)]
    return torch.cat(blocks, dim=1)[0]


def with_attend(name: str, attend: Attend) -> Transformer:
    model = copy.deepcopy(golden_model(name))
    for module in model.modules():
        if isinstance(module, Attention):
            module.attend = attend
    return model


@every_golden
@pytest.mark.parametrize("attend", [fused_attend, plain_attend])
def test_full(name: str, attend: Attend) -> None:
    reference = golden_reference(name)
    model = with_attend(name, attend)
    assert difference(full(model, reference["ids"][None])[0], reference["logits"]) < TOLERANCE
    positions = np.arange(len(reference["ids"]))[None]
    assert difference(full(model, reference["ids"][None], positions)[0], reference["logits"]) < TOLERANCE


@every_golden
@pytest.mark.parametrize("edges", [range(25), [0, 1, 4, 5, 16, 17, 24], [0, 24]], ids=["steps", "ragged", "whole"])
def test_cached(name: str, edges: Iterable[int]) -> None:
    reference = golden_reference(name)
    assert difference(cached(golden_model(name), reference["ids"], edges), reference["logits"]) < TOLERANCE


@every_golden
@pytest.mark.parametrize("attend", [fused_attend, plain_attend])
def test_left_padded_batch(name: str, attend: Attend) -> None:
    reference = golden_reference(name)
    ids, positions = reference["batch_ids"], reference["batch_positions"]
    model = with_attend(name, attend)
    assert difference(full(model, ids, positions)[positions >= 0], reference["batch_logits"]) < TOLERANCE
    cache = new_cache(model, rows=len(ids))
    found = torch.cat([read(model, cache, ids[:, a:b], positions[:, a:b]) for a, b in ((0, 3), (3, 4), (4, 9))], dim=1)
    assert not found.isnan().any()
    assert difference(found[torch.from_numpy(positions >= 0)], reference["batch_logits"]) < TOLERANCE


@every_golden
def test_truncate(name: str) -> None:
    """What was read and cut off again leaves no trace."""
    reference, model = golden_reference(name), golden_model(name)
    ids, places = reference["ids"][None], np.arange(24)[None]
    cache = new_cache(model)
    read(model, cache, ids[:, :10], places[:, :10])
    read(model, cache, ids[:, :5], places[:, 10:15])
    cache.truncate([10])
    assert difference(read(model, cache, ids[:, 10:], places[:, 10:])[0], reference["logits"][10:]) < TOLERANCE
    cache.truncate([0])
    assert difference(read(model, cache, ids, places)[0], reference["logits"]) < TOLERANCE


@every_golden
def test_truncate_rows_unlike(name: str) -> None:
    """Rows cut at different places go on side by side, with holes between their slots."""
    reference, model = golden_reference(name), golden_model(name)
    ids, places = np.repeat(reference["ids"][None], 2, axis=0), np.repeat(np.arange(24)[None], 2, axis=0)
    cache = new_cache(model, rows=2)
    read(model, cache, ids[:, :12], places[:, :12])
    cache.truncate([12, 9])
    rest = np.stack([ids[0, 12:21], ids[1, 9:18]]), np.stack([places[0, 12:21], places[1, 9:18]])
    for column in range(9):
        found = read(model, cache, *(array[:, column : column + 1] for array in rest))
        assert difference(found[0, 0], reference["logits"][12 + column]) < TOLERANCE
        assert difference(found[1, 0], reference["logits"][9 + column]) < TOLERANCE


@every_golden
def test_select(name: str) -> None:
    """Rows may be dropped, repeated and reordered, and go on as if they had always been where they are."""
    reference, model = golden_reference(name), golden_model(name)
    ids, positions = reference["batch_ids"], reference["batch_positions"]
    expected = np.zeros((*ids.shape, model.spec.vocab), dtype=np.float32)
    expected[positions >= 0] = reference["batch_logits"]
    cache = new_cache(model, rows=len(ids))
    read(model, cache, ids[:, :8], positions[:, :8])
    for rows in ([2, 0, 2], [1, 0]):  # the second time of what the first left
        cache.select(rows)
        ids, positions, expected = ids[rows], positions[rows], expected[rows]
    assert difference(read(model, cache, ids[:, 8:], positions[:, 8:]), expected[:, 8:]) < TOLERANCE


@every_golden
def test_every_parameter_shows(name: str) -> None:
    """The reference can fail: shifting the numbers of any single parameter by one place moves the logits far beyond the tolerance."""
    reference, model = golden_reference(name), copy.deepcopy(golden_model(name))
    rotated = model.spec.decoder.layers[0].attention.rope is not None
    for parameter, tensor in model.named_parameters():
        if parameter.endswith("k.bias") and not rotated:
            continue  # adds the same to a query's scores of all keys, which softmax does not see
        original = tensor.clone()
        tensor.copy_(original.roll(1, dims=-1))
        assert difference(full(model, reference["ids"][None])[0], reference["logits"]) > 100 * TOLERANCE, parameter
        tensor.copy_(original)


@every_golden
def test_every_setting_shows(name: str) -> None:
    """The reference can fail: so does every number of the spec that is no shape."""
    reference, model = golden_reference(name), golden_model(name)
    settings = list(changed(model.spec))
    assert settings
    for what, spec in settings:
        other = Transformer(spec)
        other.load_state_dict(model.state_dict())
        assert difference(full(other, reference["ids"][None])[0], reference["logits"]) > 10 * TOLERANCE, what


def changed(spec: ModelSpec) -> Iterator[tuple[str, ModelSpec]]:
    """The spec with one setting of its last layer changed at a time."""
    layer = spec.decoder.layers[-1]
    attention, norm, mlp, rope = layer.attention, layer.norm, layer.mlp, layer.attention.rope

    def with_last(last: LayerSpec) -> ModelSpec:
        return replace(spec, decoder=replace(spec.decoder, layers=(*spec.decoder.layers[:-1], last)))

    def attending(other: AttentionSpec) -> ModelSpec:
        return with_last(replace(layer, attention=other))

    yield "scale", attending(replace(attention, scale=attention.scale * 1.1))
    yield "window", attending(replace(attention, window=(attention.window or 24) - 1))
    yield "epsilon", with_last(replace(layer, norm=replace(norm, eps=norm.eps * 2)))
    yield "activation", with_last(replace(layer, mlp=replace(mlp, activation="relu")))
    if rope is not None:
        yield "theta", attending(replace(attention, rope=replace(rope, theta=rope.theta * 1.1)))
    if rope is not None and rope.scaling is not None:
        for key, value in asdict(rope.scaling).items():
            yield key, attending(replace(attention, rope=replace(rope, scaling=replace(rope.scaling, **{key: value * 2}))))


@every_golden
def test_parameters_are_those_of_the_module(name: str) -> None:
    model = golden_model(name)
    assert parameters(model.spec) == {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@every_golden
def test_transformers_agrees_today(name: str) -> None:
    """The stored logits are what an installed transformers gives for the stored folder."""
    transformers = pytest.importorskip("transformers")
    from tests.golden.make import batch_logits

    reference = golden_reference(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32, attn_implementation="eager")
    assert difference(model(torch.from_numpy(reference["ids"])[None]).logits[0], reference["logits"]) < TOLERANCE
    positions = reference["batch_positions"]
    assert difference(batch_logits(model, reference["batch_ids"], positions)[positions >= 0], reference["batch_logits"]) < TOLERANCE
