"""Attention by hand, and what it must never do: look into the future, at padding, or return what is no number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.conftest import golden_model
from tgen.model.attention import Attention, attention_weights, fused_attend, plain_attend
from tgen.model.positions import Frame
from tgen.spec import Alibi, AttentionSpec

ONE_HEAD = AttentionSpec(heads=1, kv_heads=1, head_dim=2, scale=1.0)
THREE_WORDS = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]])


def frame(queries: list[int], keys: list[int] | None = None, bias: Alibi | None = None) -> Frame:
    rows = torch.tensor([queries])
    return Frame(rows, rows if keys is None else torch.tensor([keys]), torch.float32, bias)


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
@pytest.mark.parametrize("bias", [None, Alibi(2)])
def test_future_padding_and_what_left_the_window_weigh_nothing(simple: bool, window: int | None, bias: Alibi | None) -> None:
    spec = AttentionSpec(heads=2, kv_heads=1, head_dim=4, scale=0.5, window=window)
    positions = torch.arange(5) if simple else torch.tensor([-1, -1, 0, 1, 2])
    torch.manual_seed(0)
    geometry = Frame(positions[None], positions[None], torch.float32, bias, simple=simple)
    weights = attention_weights(torch.randn(1, 2, 5, 4), torch.randn(1, 1, 5, 4), geometry, spec)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 5))
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
@pytest.mark.parametrize("bias", [None, Alibi(6)])
@pytest.mark.parametrize("simple", [True, False])
def test_fused_is_plain(heads: int, kv_heads: int, bias: Alibi | None, simple: bool) -> None:
    torch.manual_seed(1)
    spec = AttentionSpec(heads=heads, kv_heads=kv_heads, head_dim=8, scale=0.3, window=4)
    queries = torch.arange(4).repeat(2, 1) if simple else torch.tensor([[3, 4, 5, 6], [-1, -1, 0, 1]])
    keys = queries if simple else torch.tensor([[0, 1, 2, 3, 4, 5, 6], [-1, -1, -1, -1, -1, 0, 1]])
    geometry = Frame(queries, keys, torch.float32, bias, simple=simple)
    k, v = torch.randn(2, 2, kv_heads, keys.shape[1], 8)
    q = torch.randn(2, heads, 4, 8)
    torch.testing.assert_close(fused_attend(q, k, v, geometry, spec), plain_attend(q, k, v, geometry, spec))


def test_the_seam_is_used() -> None:
    """What stands in `attend` is what a layer calls."""
    attention = Attention(AttentionSpec(heads=4, kv_heads=2, head_dim=4, scale=0.5), width=8)
    shapes: list[tuple[int, ...]] = []

    def recorder(q: Tensor, k: Tensor, v: Tensor, geometry: Frame, spec: AttentionSpec) -> Tensor:
        shapes.append(tuple(attention_weights(q, k, geometry, spec).shape))
        return fused_attend(q, k, v, geometry, spec)

    attention.attend = recorder
    attention(torch.randn(1, 3, 8), frame([0, 1, 2]), None)
    assert shapes == [(1, 4, 3, 3)]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "mistral", "bloom"])
def test_the_future_does_not_reach_the_past(name: str) -> None:
    """Exchanging a word leaves every logit before it exactly as it was."""
    model = golden_model(name)
    ids = torch.arange(12)[None]
    other = ids.clone()
    other[0, 7] = 99
    before, after = model(ids), model(other)
    assert torch.equal(before[0, :7], after[0, :7])
    assert not torch.isclose(before[0, 7:], after[0, 7:]).all(dim=-1).any()
