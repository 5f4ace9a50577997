"""Which of the goldens the native executor runs: all but those that need what it lacks, and it says what that is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import ENCODERS
from tests.executors.native.models import executor, spec_of
from tgen.executors.native import interface as c
from tgen.executors.native.open import supports
from tgen.executors.native.packing import multiplied
from tgen.spec.records import NormSpec
from tgen.spec.streams import LayerVectorSpec, StreamsSpec

REFUSED = {
    "blenderbot_small": "added after a norm",
    "albert": "embeddings have another width than its layers",
    "electra": "embeddings have another width than its layers",
    "deberta": "vectors of distances",
    "deberta_plain": "vectors of distances",
    "longt5_blocks": "sums of blocks",
}


def test_every_encoder_runs_but_those_that_need_what_it_lacks() -> None:
    found = {name: reason for name in ENCODERS if (reason := supports(spec_of(name))) is not None}
    assert found.keys() == REFUSED.keys()
    assert [name for name, reason in found.items() if REFUSED[name] not in reason] == []


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("llama3", {"gate_scale": 0.5}, "factors"),
        ("llama3", {"out_scale": 2.0}, "factors"),
        ("mixtral", {"inner": 8}, "another width than its layers"),
    ],
)
def test_feed_forward_parts_that_it_lacks(name: str, changes: dict[str, Any], reason: str) -> None:
    spec = spec_of(name)
    assert supports(spec) is None and spec.decoder is not None
    *before, last = spec.decoder.layers
    assert last.feed_forward is not None
    other = replace(last, feed_forward=replace(last.feed_forward, **changes))
    assert reason in str(supports(replace(spec, decoder=replace(spec.decoder, layers=(*before, other)))))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mixer": {"shares": 0}}, "shares keys"),
        ({"mixer": {"values_are_keys": True}}, "makes values of them"),
        ({"mixer": {"v_norm": NormSpec("rms", 1e-6, weight=False)}}, "norm of values"),
        ({"feed_forward": {"cutoff": 1.5}}, "bounds"),
        ({"laurel": 4}, "more than a mixer"),
        ({"scaled": True}, "more than a mixer"),
        ({"vector": LayerVectorSpec(4, 40)}, "more than a mixer"),
        ({"streams": StreamsSpec(2, 0, scaled=False)}, "residual streams"),
    ],
)
def test_layers_that_it_lacks(changes: dict[str, Any], reason: str) -> None:
    spec = spec_of("gemma3")
    assert supports(spec) is None and spec.decoder is not None
    *before, last = spec.decoder.layers
    made = {key: replace(getattr(last, key), **one) if isinstance(one, dict) else one for key, one in changes.items()}
    assert reason in str(supports(replace(spec, decoder=replace(spec.decoder, layers=(*before, replace(last, **made))))))


def test_tables_are_never_packed() -> None:
    """Quantising leaves alone what a run looks up: in UMT5, each layer has its own table of distances."""
    names = [name for golden in ENCODERS for name, _, _ in multiplied(spec_of(golden))]
    assert any(name.endswith("mixer.q") for name in names)
    assert not [name for name in names if name.endswith(("distances", "relative", "bias"))]


def test_experts_are_packed_and_what_chooses_them_is_not() -> None:
    names = {name.removeprefix("decoder.layers.1.feed_forward.") for name, _, _ in multiplied(spec_of("qwen2_moe"))}
    assert {f"experts.{number}.{part}" for number in range(4) for part in ("gate", "up", "down")} <= names
    assert "shared.up" in names
    assert names.isdisjoint(("router", "shared_gate"))
    held = executor("qwen2_moe", dtype="int8").model.weights
    assert held.matrix("decoder.layers.1.feed_forward.experts.3.down").format == c.INT8
    assert held.matrix("decoder.layers.1.feed_forward.router").format == c.FLOAT32
