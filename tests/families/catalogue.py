"""All folders that are known as the hub has them."""

from __future__ import annotations

from typing import Any

from tests.conftest import spec_of
from tests.families.official import Official
from tests.families.official_decoders import DECODERS
from tests.families.official_encoders import FOLDERS, SIZES
from tests.families.official_further import FURTHER
from tests.families.official_gemmas import GEMMAS
from tests.families.official_hybrids import COUNTS, HYBRIDS
from tests.families.official_mixtures import COMMON, MIXTURES, ROUTER
from tests.families.official_more import MORE
from tests.families.official_others import OTHERS

NEMOTRON = {"num_hidden_layers": 4, "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16}
SMALL: dict[str, dict[str, Any]] = {
    "openai/gpt-oss-20b": {"intermediate_size": 32},
    "tencent/Hunyuan-A13B-Instruct": {"moe_intermediate_size": 48, "num_shared_expert": 1, "moe_topk": 2},
    "google/gemma-3n-E2B-it": {
        "text_config": {
            "num_kv_shared_layers": 0,
            "intermediate_size": 48,
            "activation_sparsity_pattern": [0.95, 0.0],
            "hidden_size_per_layer_input": 8,
        }
    },
    "google/gemma-4-E2B-it": {"text_config": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8}},
    "google/gemma-4-26B-A4B-it": {"text_config": {"top_k_experts": 2}},
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": {"hybrid_override_pattern": "M-*-", **NEMOTRON},
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": {"hybrid_override_pattern": "ME*E", **NEMOTRON},
}


def commands(values: dict[str, Any]) -> tuple[str, ...]:
    """What such a model is for."""
    return ("embed",) if spec_of(values).kind == "encoder-only" else ("generate",)


OFFICIAL = {
    **DECODERS,
    **OTHERS,
    **MORE,
    **FURTHER,
    **{name: Official(*folder, SIZES.get(name), commands=commands(folder[0])) for name, folder in FOLDERS.items()},
}
for mixture, (values, count, active) in MIXTURES.items():
    router = ROUTER if values["model_type"] != "minicpm3" else {}
    OFFICIAL[mixture] = Official({**COMMON, **router, **values}, count=1e9 * count, active=1e9 * active, small=SMALL.get(mixture, {}))
for hybrid, values in (HYBRIDS | GEMMAS).items():
    total, taking_part = COUNTS.get(hybrid, (None, None))
    common = {key: value for key, value in COMMON.items() if key != "hidden_act"}
    OFFICIAL[hybrid] = Official({**common, **values}, count=total, active=taking_part, small=SMALL.get(hybrid, {}))
