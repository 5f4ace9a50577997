"""Golden checkpoints of models whose mixers carry a state. Knows neither torch nor transformers."""

from __future__ import annotations

from tests.golden.mixtures import GRANITE
from tests.golden.wanted import BFLOAT, LAYERS, QWEN_VISION, TINY, TWO_HEADS, Golden

ONE = {**TINY, "vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2}
HYBRID = {**LAYERS, **TWO_HEADS, "vocab_size": 40, "hidden_size": 12, "intermediate_size": 10}
DELTA = {
    **HYBRID,
    "rms_norm_eps": 0.05,
    "head_dim": 8,
    "partial_rotary_factor": 0.75,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 3,
    "linear_conv_kernel_dim": 3,
}
QWEN_ROPE = {"rope_type": "default", "rope_theta": 70.0, "partial_rotary_factor": 0.75}
FALCON_H1 = {
    **HYBRID,
    "hidden_size": 8,
    "rms_norm_eps": 0.05,
    "rope_parameters": {"rope_theta": 60.0},
    "mamba_d_ssm": 12,
    "mamba_n_heads": 4,
    "mamba_n_groups": 2,
    "mamba_d_state": 5,
    "mamba_d_conv": 3,
    "attention_in_multiplier": 0.8,
    "attention_out_multiplier": 0.9,
    "embedding_multiplier": 5.7,
    "key_multiplier": 0.4,
    "lm_head_multiplier": 0.6,
    "mlp_multipliers": [0.9, 0.7],
    "ssm_in_multiplier": 1.3,
    "ssm_multipliers": [0.7, 1.2, 0.6, 1.4, 0.8],
    "ssm_out_multiplier": 0.6,
}

RECURRENT = {
    "mamba": Golden(
        "mamba", {**ONE, "layer_norm_epsilon": 0.05, "state_size": 5, "conv_kernel": 3, "time_step_rank": 3}, dialect=4, dtype=BFLOAT
    ),
    "falcon_mamba": Golden(
        "falcon_mamba",
        {
            **ONE,
            "layer_norm_epsilon": 0.05,
            "mixer_rms_eps": 0.07,
            "time_step_rank": 2,
            "state_size": 5,
            "use_bias": True,
            "use_conv_bias": False,
            "tie_word_embeddings": False,
        },
        dtype=BFLOAT,
    ),
    "mamba2": Golden(
        "mamba2",
        {
            **ONE,
            "layer_norm_epsilon": 0.05,
            "state_size": 5,
            "num_heads": 4,
            "head_dim": 4,
            "n_groups": 2,
            "time_step_limit": [0.0, 0.9],
            "use_bias": True,
            "chunk_size": 8,
        },
        dtype=BFLOAT,
    ),
    "lfm2": Golden(
        "lfm2",
        {
            **HYBRID,
            "norm_eps": 0.05,
            "conv_bias": True,
            "layer_types": ["conv", "full_attention"],
            "block_multiple_of": 5,
            "block_ffn_dim_multiplier": 1.3,
            "intermediate_size": 15,
            "rope_parameters": {"rope_theta": 60.0},
        },
        dialect=5,
        dtype=BFLOAT,
    ),
    "lfm2_moe": Golden(
        "lfm2_moe",
        {
            **HYBRID,
            "norm_eps": 0.05,
            "layer_types": ["full_attention", "conv"],
            "num_dense_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 6,
            "routed_scaling_factor": 1.7,
            "tie_word_embeddings": True,
        },
        dtype=BFLOAT,
    ),
    "qwen3_next": Golden(
        "qwen3_next",
        {
            **DELTA,
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 5,
            "shared_expert_intermediate_size": 6,
            "mlp_only_layers": [0],
            "norm_topk_prob": False,
        },
        dtype=BFLOAT,
    ),
    "qwen3_5": Golden(
        "qwen3_5",
        {
            "text_config": {**DELTA, "full_attention_interval": 2, "rope_parameters": {**QWEN_ROPE, "mrope_section": [1, 1, 1]}},
            "vision_config": {**QWEN_VISION, "hidden_size": 8, "out_hidden_size": 12, "intermediate_size": 8, "num_position_embeddings": 4},
            "tie_word_embeddings": False,
        },
        dtype=BFLOAT,
    ),
    "qwen3_5_moe": Golden(
        "qwen3_5_moe_text",
        {
            **DELTA,
            "layer_types": ["full_attention", "linear_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 5,
            "shared_expert_intermediate_size": 6,
            "rope_parameters": QWEN_ROPE,
        },
        dtype=BFLOAT,
    ),
    "granitemoehybrid": Golden(
        "granitemoehybrid",
        {
            **HYBRID,
            **GRANITE,
            "hidden_size": 8,
            "rms_norm_eps": 0.05,
            "layer_types": ["linear_attention", "full_attention"],
            "position_embedding_type": "rope",
            "rope_parameters": {"rope_theta": 60.0},
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 6,
            "shared_intermediate_size": 5,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_proj_bias": True,
        },
        dtype=BFLOAT,
    ),
    "falcon_h1": Golden("falcon_h1", {**FALCON_H1, "mamba_rms_norm": False}, dialect=4, dtype=BFLOAT),
    "falcon_h1_normed": Golden(
        "falcon_h1",
        {
            **FALCON_H1,
            "num_hidden_layers": 1,
            "mamba_rms_norm": True,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        dtype=BFLOAT,
    ),
}
