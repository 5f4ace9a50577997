"""Scaled rotations, each compared with the formula of its paper."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.conftest import config_of, spec_of
from tgen.spec.positions import PairScaling, RopeSpec
from tgen.spec.records import AttentionSpec


def attention(name: str, **changes: Any) -> AttentionSpec:
    """The attention of a golden's last layer, whose config.json is changed."""
    stack = spec_of({**config_of(name), **changes}).decoder
    assert stack is not None
    return stack.layers[-1].attention


def scaling(**settings: Any) -> PairScaling:
    """The scaling of a Llama with heads of 64, from these settings."""
    rope = attention("llama3", head_dim=64, rope_parameters={"rope_theta": 10000.0, **settings}).rope
    assert rope is not None and isinstance(rope.scaling, PairScaling)
    return rope.scaling


YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 2048}


def test_yarn_keeps_fast_pairs_and_slows_the_slow_ones_down() -> None:
    """arXiv:2309.00071, section 3.2: 32 turns within the original context or more, one or fewer, a blend between."""
    found = scaling(**YARN)
    turns = [2048 / (2 * math.pi * 10000 ** (2 * i / 64)) for i in range(32)]
    assert all(divisor == 1 for divisor, count in zip(found.divisors, turns, strict=True) if count > 40)
    assert all(divisor == pytest.approx(8) for divisor, count in zip(found.divisors, turns, strict=True) if count < 0.7)
    blend = [divisor for divisor in found.divisors if 1 < divisor < 7.99]
    assert len(blend) > 5 and blend == sorted(blend)
    assert found.amplitude == pytest.approx(0.1 * math.log(8) + 1)


@pytest.mark.parametrize(
    ("settings", "amplitude"),
    [
        ({"attention_factor": 1.5}, 1.5),
        ({"attn_factor": 0.5}, 0.5 * (0.1 * math.log(8) + 1)),
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, (0.2 * math.log(8) + 1) / (0.1 * math.log(8) + 1)),
        ({"mscale": 2.0}, 0.1 * math.log(8) + 1),
        ({"factor": 0.5}, 1.0),
    ],
)
def test_the_amplitude_of_yarn(settings: dict[str, float], amplitude: float) -> None:
    assert scaling(**{**YARN, **settings}).amplitude == pytest.approx(amplitude)


def test_yarn_without_rounding_its_borders() -> None:
    assert scaling(**YARN, truncate=False).divisors != scaling(**YARN).divisors


def test_longrope_ends_at_the_original_context() -> None:
    """Beyond it every rotation would differ, those of ids that were read too; both names of the kind, and the key in both places."""
    values = config_of("phi3_long")
    assert spec_of(values).context == 32
    for kind in ("su", "longrope"):
        rope = {**values["rope_scaling"], "rope_type": None, "type": kind, "original_max_position_embeddings": 32}
        spec = spec_of({**values, "original_max_position_embeddings": None, "rope_scaling": rope})
        assert spec == spec_of(values)
    scaled = attention("phi3_long").rope
    assert scaled is not None and isinstance(scaled.scaling, PairScaling)
    assert scaled.scaling.divisors == (1.0, 1.2, 1.9)
    assert scaled.scaling.amplitude == pytest.approx(math.sqrt(1 + math.log(64 / 32) / math.log(32)))


def test_dynamic_scaling_changes_nothing_within_the_context() -> None:
    plain = attention("llama3", rope_parameters={"rope_theta": 80.0})
    assert attention("llama3", rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 80.0}) == plain


def test_alpha_raises_the_base() -> None:
    """Hunyuan: theta * alpha^(dim / (dim - 2))."""
    rope = attention("hunyuan").rope
    assert rope == RopeSpec(6, 50.0 * 20.0**1.5)


def test_proportional_rotations_stop_the_last_pairs() -> None:
    rope = attention("llama_proportional").rope
    assert rope == RopeSpec(12, 50.0, PairScaling((2.0, 2.0, 2.0, math.inf, math.inf, math.inf)))


@pytest.mark.parametrize(("position", "factor"), [(0, 1.0), (3, 1.0), (4, 1 + 0.6 * math.log(2)), (9, 1 + 0.6 * math.log(3))])
def test_queries_grow_with_every_span(position: int, factor: float) -> None:
    import torch

    from tgen.executors.torch.positions import query_growth

    growth = attention("ministral3").query_growth
    assert growth is not None
    assert query_growth(growth, torch.tensor([[position]]), torch.float32).item() == pytest.approx(factor)
