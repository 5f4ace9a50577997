"""Golden checkpoints of mixtures of experts. Knows neither torch nor transformers."""

from __future__ import annotations

from tests.golden.wanted import BFLOAT, DYNAMIC, SMALL, TWO_HEADS, YARN, Golden

# Mixtures: four experts, of which two take part, or eight in groups.
FEW = {**SMALL, **TWO_HEADS, "vocab_size": 40}
MIXTURE = {**FEW, "num_experts_per_tok": 2}
LOCAL = {**MIXTURE, "intermediate_size": 8, "num_local_experts": 4}
INNER = {**MIXTURE, "intermediate_size": 12, "moe_intermediate_size": 6}
EXPERTS = {**INNER, "num_experts": 4}
GROUPED = {**INNER, "n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
GRANITE = {"embedding_multiplier": 3.0, "residual_multiplier": 0.22, "attention_multiplier": 0.3, "logits_scaling": 2.5}
LATENT = {"kv_lora_rank": 10, "q_lora_rank": 6, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7, "num_key_value_heads": 2}
DEEP = {
    **GROUPED,
    **LATENT,
    "n_routed_experts": 6,
    "n_group": 3,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}
DEEP_YARN = {**YARN, "mscale": 0.8, "mscale_all_dim": 1.3}

MIXTURES = {
    "mixtral": Golden("mixtral", {**LOCAL, "sliding_window": 6, "head_dim": 10}, dialect=4, dtype=BFLOAT),
    "qwen2_moe": Golden(
        "qwen2_moe",
        {
            **EXPERTS,
            "shared_expert_intermediate_size": 14,
            "num_hidden_layers": 3,
            "decoder_sparse_step": 2,
            "rope_parameters": {"rope_theta": 60.0},
        },
        dialect=4,
        dtype=BFLOAT,
        seed=1101,
    ),
    "qwen3_moe": Golden(
        "qwen3_moe", {**EXPERTS, "head_dim": 8, "norm_topk_prob": True, "num_hidden_layers": 3, "mlp_only_layers": [1]}, dtype=BFLOAT
    ),
    "olmoe": Golden(
        "olmoe", {**MIXTURE, "num_experts": 4, "num_key_value_heads": 2, "intermediate_size": 8}, dialect=4, dtype=BFLOAT, seed=1102
    ),
    "granitemoe": Golden("granitemoe", {**LOCAL, **GRANITE, "tie_word_embeddings": True}, dialect=4, dtype=BFLOAT),
    "granitemoeshared": Golden("granitemoeshared", {**LOCAL, **GRANITE, "shared_intermediate_size": 10}, dtype=BFLOAT),
    "phimoe": Golden(
        "phimoe",
        {
            **LOCAL,
            "attention_bias": True,
            "lm_head_bias": True,
            "router_jitter_noise": 0.03,
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.0, 1.4, 1.7, 2.0],
                "long_factor": [2.0, 3.0, 4.0, 5.0],
                "short_mscale": 1.3,
                "long_mscale": 1.5,
                "original_max_position_embeddings": 32,
            },
        },
        dialect=4,
        dtype=BFLOAT,
    ),
    "ernie4_5_moe": Golden(
        "ernie4_5_moe",
        {**INNER, "moe_num_experts": 6, "moe_k": 2, "moe_num_shared_experts": 2, "tie_word_embeddings": True},
        dtype=BFLOAT,
    ),
    "glm4_moe": Golden(
        "glm4_moe", {**GROUPED, "head_dim": 8, "use_qk_norm": True, "attention_bias": True, "routed_scaling_factor": 1.7}, dtype=BFLOAT
    ),
    "dots1": Golden("dots1", {**GROUPED, "head_dim": 6, "sliding_window": 5, "max_window_layers": 1}, dialect=4, dtype=BFLOAT),
    "gpt_oss": Golden(
        "gpt_oss",
        {
            **LOCAL,
            "head_dim": 8,
            "sliding_window": 5,
            "swiglu_limit": 0.6,
            "swiglu_alpha": 1.9,
            "rope_parameters": {**YARN, "truncate": False},
        },
        dtype=BFLOAT,
    ),
    "deepseek_v2": Golden(
        "deepseek_v2",
        {**DEEP, "q_lora_rank": None, "num_experts_per_tok": 3, "topk_method": "group_limited_greedy", "rope_parameters": DEEP_YARN},
        dialect=4,
        dtype=BFLOAT,
    ),
    "deepseek_v3": Golden("deepseek_v3", {**DEEP, "attention_bias": True, "num_mtp_layers": 0}, dtype=BFLOAT),
    "hunyuan_moe": Golden(
        "hunyuan_v1_moe",
        {
            **FEW,
            "intermediate_size": 8,
            "num_experts": 4,
            "moe_topk": [3, 2],
            "head_dim": 6,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": {**DYNAMIC, "alpha": 20.0, "rope_theta": 50.0},
        },
        dialect=4,
        dtype=BFLOAT,
        seed=1103,
    ),
    # No mixture, but the same attention.
    "minicpm3": Golden(
        "minicpm3", {**FEW, **LATENT, "scale_emb": 3, "scale_depth": 0.9, "dim_model_base": 5}, dialect=4, dtype=BFLOAT, seed=213
    ),
}
