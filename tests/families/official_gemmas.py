"""The config.json of public models whose layers have vectors of their own for each token."""

from __future__ import annotations

from typing import Any

TOKENS = {
    "audio_token_id": 262273,
    "boa_token_id": 256000,
    "boi_token_id": 255999,
    "eoi_token_id": 262144,
    "image_token_id": 262145,
}

GEMMAS: dict[str, dict[str, Any]] = {
    "google/gemma-3n-E2B-it": {
        **TOKENS,
        "model_type": "gemma3n",
        "audio_config": {"model_type": "gemma3n_audio"},
        "audio_soft_tokens_per_image": 188,
        "eoa_token_id": 262272,
        "text_config": {
            "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 20,
            "altup_active_idx": 0,
            "altup_coef_clip": 120.0,
            "altup_correct_scale": True,
            "altup_lr_multiplier": 1.0,
            "altup_num_inputs": 4,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "final_logit_softcapping": 30.0,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 2048,
            "hidden_size_per_layer_input": 256,
            "initializer_range": 0.02,
            "intermediate_size": [8192] * 30,
            "laurel_rank": 64,
            "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 6,
            "max_position_embeddings": 32768,
            "model_type": "gemma3n_text",
            "num_attention_heads": 8,
            "num_hidden_layers": 30,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 10,
            "query_pre_attn_scalar": 256,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "sliding_window": 512,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": 262400,
            "vocab_size_per_layer_input": 262144,
        },
        "vision_config": {"model_type": "gemma3n_vision"},
        "vision_soft_tokens_per_image": 256,
    },
}
