"""Keys of config.json under the other names that transformers reads for them, and keys that say again what others say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import config_of, spec_of
from tgen.spec.records import MlpSpec

# A golden, the name that its config.json has, and the other one.
OTHERS = [
    *(("t5", key, other) for key, other in (("d_model", "hidden_size"), ("num_heads", "num_attention_heads"), ("d_kv", "head_dim"))),
    ("umt5", "num_layers", "num_hidden_layers"),
    *(("bart", key, other) for key, other in (("d_model", "hidden_size"), ("encoder_attention_heads", "num_attention_heads"))),
    ("marian", "encoder_layers", "num_hidden_layers"),
    *(("distilbert", key, other) for key, other in (("dim", "hidden_size"), ("n_heads", "num_attention_heads"))),
    ("distilbert", "n_layers", "num_hidden_layers"),
    ("ernie4_5_moe", "moe_k", "num_experts_per_tok"),
    ("granitemoehybrid", "layer_types", "layers_block_type"),
    ("nemotron_h_moe", "n_routed_experts", "num_local_experts"),
]


@pytest.mark.parametrize(("name", "key", "other"), OTHERS)
def test_another_name_stands_for_a_key_or_beside_it(name: str, key: str, other: str) -> None:
    values = config_of(name)
    plain = spec_of(values)
    assert spec_of({**values, other: values[key]}) == plain
    assert spec_of({**{one: value for one, value in values.items() if one != key}, other: values[key]}) == plain


@pytest.mark.parametrize("name", ["t5", "mt5", "umt5", "longt5"])
@pytest.mark.parametrize(
    ("given", "activation", "gated"),
    [
        ({"feed_forward_proj": "gated-gelu"}, "gelu_tanh", True),
        ({"feed_forward_proj": "gelu"}, "gelu", False),
        ({"feed_forward_proj": "gated-relu"}, "relu", True),
        ({"feed_forward_proj": "silu"}, "silu", False),
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, "gelu", True),
        ({"feed_forward_proj": "relu", "dense_act_fn": "silu", "is_gated_act": True}, "silu", True),
        ({"feed_forward_proj": "gated-gelu", "is_gated_act": False}, "gelu_tanh", False),
    ],
)
def test_what_t5_says_twice(name: str, given: dict[str, Any], activation: str, gated: bool) -> None:
    """transformers keeps the two halves of `feed_forward_proj` in keys of their own, and those that a folder has go first."""
    values = {key: value for key, value in config_of(name).items() if key not in ("dense_act_fn", "is_gated_act")}
    part = spec_of({**values, **given}).stacks["encoder"].layers[0].feed_forward
    assert isinstance(part, MlpSpec)
    assert (part.activation, part.gated) == (activation, gated)


def test_bounds_that_no_code_of_gemma_3_applies() -> None:
    """Its attention bounds no scores, and the model with eyes no logits; the text model alone does."""
    values = config_of("gemma3")
    assert spec_of({**values, "attn_logit_softcapping": 2.0}) == spec_of(values)
    assert spec_of({**values, "final_logit_softcapping": 2.0}) != spec_of(values)
    images = config_of("gemma3_images")
    assert spec_of({**images, "text_config": {**images["text_config"], "final_logit_softcapping": 2.0}}) == spec_of(images)
