"""Attention computed by hand. It must never attend to the future or to padding, or return NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import DECODERS, ENCODERS, GOLDENS, golden_model, golden_reference
from tgen.executors.torch.attention import Attention, attention_weights, fused_attend, plain_attend
from tgen.executors.torch.forward_pass import whole_pass
from tgen.executors.torch.maps import recording
from tgen.executors.torch.positions import Bias, Distances, Frame
from tgen.spec.positions import Alibi
from tgen.spec.records import AttentionSpec, ExpertsSpec

ONE_HEAD = AttentionSpec(heads=1, kv_heads=1, head_dim=2, scale=1.0)
SLOPES = [None, Alibi(6)]
THREE_WORDS = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]])


def frame(positions: list[int]) -> Frame:
    return Frame(torch.tensor([positions]), torch.tensor([positions]), torch.float32)


def distances(bias: Alibi | None) -> Bias | None:
    return None if bias is None else Distances(bias)


def test_three_words_by_hand() -> None:
    """Words (1,0), (0,1), (1,1) as queries, keys and values alike; the scores are their dot products."""
    e = math.e
    # Scores of the third word are 1, 1, 2: weights 1 : 1 : e. The second sees 0, 1; the first only itself.
    expected = torch.tensor([[1, 0, 0], [1 / (1 + e), e / (1 + e), 0], [1 / (2 + e), 1 / (2 + e), e / (2 + e)]])
    weights = attention_weights(THREE_WORDS, THREE_WORDS, frame([0, 1, 2]), ONE_HEAD)
    torch.testing.assert_close(weights[0, 0], expected)
    for attend in (plain_attend, fused_attend):
        mixed = attend(THREE_WORDS, THREE_WORDS, THREE_WORDS, frame([0, 1, 2]), ONE_HEAD)
        torch.testing.assert_close(mixed[0, 0], expected @ THREE_WORDS[0, 0])


@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("bias", SLOPES)
def test_future_padding_and_what_left_the_window_weigh_nothing(simple: bool, window: int | None, bias: Alibi | None) -> None:
    spec = AttentionSpec(heads=6, kv_heads=1, head_dim=4, scale=0.5, window=window)
    positions = torch.arange(5) if simple else torch.tensor([-1, -1, 0, 1, 2])
    torch.manual_seed(0)
    geometry = Frame(positions[None], positions[None], torch.float32, distances(bias), plain=simple)
    weights = attention_weights(torch.randn(1, 6, 5, 4), torch.randn(1, 1, 5, 4), geometry, spec)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 6, 5))
    query, key = positions[:, None], positions[None, :]
    visible = (key >= 0) & (key <= query) & (query - key < (window or 99))
    real = positions >= 0
    assert (weights[0, :, ~visible & real[:, None]] == 0).all()
    assert (weights[0, :, visible] > 0).all()


def test_heads_share_keys_in_order() -> None:
    """With grouped queries, heads 0 and 1 read key head 0, heads 2 and 3 key head 1."""
    spec = AttentionSpec(heads=4, kv_heads=2, head_dim=2, scale=1.0)
    v = torch.stack((torch.zeros(3, 2), torch.ones(3, 2)))[None]
    for attend in (plain_attend, fused_attend):
        mixed = attend(torch.randn(1, 4, 3, 2), torch.randn(1, 2, 3, 2), v, frame([0, 1, 2]), spec)
        assert mixed[0, :, 0, 0].tolist() == pytest.approx([0, 0, 1, 1])


@pytest.mark.parametrize("heads, kv_heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("bias", SLOPES)
@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("softcap", [None, 0.5])
def test_fused_is_plain(heads: int, kv_heads: int, bias: Alibi | None, simple: bool, causal: bool, softcap: float | None) -> None:
    torch.manual_seed(1)
    spec = AttentionSpec(heads=heads, kv_heads=kv_heads, head_dim=8, scale=0.3, window=4 if causal else None, softcap=softcap)
    queries = torch.arange(4).repeat(2, 1) if simple else torch.tensor([[3, 4, 5, 6], [-1, -1, 0, 1]])
    keys = queries if simple else torch.tensor([[0, 1, 2, 3, 4, 5, 6], [-1, -1, -1, -1, -1, 0, 1]])
    geometry = Frame(queries, keys, torch.float32, distances(bias), causal=causal, plain=simple)
    k, v = torch.randn(2, 2, kv_heads, keys.shape[1], 8)
    q = torch.randn(2, heads, 4, 8)
    torch.testing.assert_close(fused_attend(q, k, v, geometry, spec), plain_attend(q, k, v, geometry, spec))


def test_the_seam_is_used() -> None:
    """A layer calls the function in its `attend`."""
    attention = Attention(AttentionSpec(heads=4, kv_heads=2, head_dim=4, scale=0.5), width=8)
    shapes: list[tuple[int, ...]] = []

    def recorder(q: Tensor, k: Tensor, v: Tensor, geometry: Frame, spec: AttentionSpec, sinks: Tensor | None) -> Tensor:
        shapes.append(tuple(attention_weights(q, k, geometry, spec, sinks).shape))
        return fused_attend(q, k, v, geometry, spec, sinks)

    attention.attend = recorder
    x = torch.randn(1, 3, 8)
    attention(x, whole_pass((1, 3), None, None, x, None, causal=True), 0)
    assert shapes == [(1, 4, 3, 3)]


def sees(queries: np.ndarray, keys: np.ndarray, *, causal: bool, window: int | None = None) -> np.ndarray:
    """Which keys a query other than padding may see, [rows, n, m]."""
    query, key = queries[:, :, None], keys[:, None, :]
    seen: np.ndarray = (key >= 0) & ((key <= query) | (not causal)) & (abs(query - key) < (window or 99))
    return seen


@pytest.mark.parametrize("name", GOLDENS)
def test_every_map_is_dark_where_nothing_may_be_seen(name: str) -> None:
    """In every layer of every family: padding of a text or source, the future, and keys before the window have weight 0."""
    reference, model = golden_reference(name), golden_model(name)
    positions, source = reference["batch_positions"], reference.get("batch_source_positions")
    with torch.inference_mode(), recording(model) as recorder:
        places = None if source is None else torch.from_numpy(source)
        read = None if source is None else model.read_source(torch.from_numpy(reference["batch_source"]), places)
        model(torch.from_numpy(reference["batch_ids"]), torch.from_numpy(positions), source=read)
    for kind, maps in recorder.maps.items():
        keys = positions if source is None or kind == "decoder" else source
        queries = source if source is not None and kind == "encoder" else positions
        stack = model.spec.stacks["encoder" if kind == "encoder" else "decoder"]
        for attention, weights in zip(stack.attentions * stack.rounds, maps, strict=True):
            seen = sees(queries, keys, causal=kind == "decoder", window=None if kind == "cross" else attention.window)
            seen, weights = seen[queries >= 0], weights.transpose(0, 2, 3, 1)[queries >= 0]  # [queries, keys, heads]
            tokens = weights[:, : seen.shape[1]]  # LongT5's queries see sums of blocks, too
            assert (tokens[~seen] == 0).all()
            assert (tokens[seen] > 0).all()
            if attention.sinks:
                assert (weights.sum(1) < 1).all()
            else:
                np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_the_future_does_not_reach_the_past(name: str) -> None:
    """Exchanging a word leaves everything before it exactly as it was.

    In a mixture, torch multiplies all tokens of an expert together, and rounds by how many they are.
    """
    reference, model = golden_reference(name), golden_model(name)
    ids = torch.arange(12)[None]
    other = ids.clone()
    other[0, 7] = 30
    with torch.inference_mode():
        read = model.read_source(torch.from_numpy(reference["batch_source"][:1])) if "batch_source" in reference else None
        before, after = model(ids, source=read), model(other, source=read)
    mixture = any(isinstance(layer.feed_forward, ExpertsSpec) for stack in model.spec.stacks.values() for layer in stack.layers)
    torch.testing.assert_close(before[0, :7], after[0, :7], rtol=0, atol=1e-5 if mixture else 0)
    assert not torch.isclose(before[0, 7:], after[0, 7:]).all(dim=-1).any()


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_sees_both_ways(name: str) -> None:
    """Exchanging a word changes every other one, before and after it."""
    model = golden_model(name)
    ids = torch.arange(12)[None]
    other = ids.clone()
    other[0, 7] = 30
    with torch.inference_mode():
        assert not torch.isclose(model.encode(ids), model.encode(other)).all(dim=-1).any()
