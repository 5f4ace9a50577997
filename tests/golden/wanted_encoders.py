"""Goldens of encoders, encoder-decoders and a few decoders that came later: tiny, with a vocabulary of 40 and seeds of their own."""

from __future__ import annotations

from typing import Any

from tests.golden.wanted import BFLOAT, CONTEXT, LLAMA3_ROPE, START, Golden

IDS = {"vocab_size": 40, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
SHAPE = {
    **IDS,
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "layer_norm_eps": 0.05,
    "type_vocab_size": 2,
}
PADDED = {**SHAPE, "num_hidden_layers": 1, "type_vocab_size": 1, "max_position_embeddings": CONTEXT + 2}
TYPELESS = {key: value for key, value in PADDED.items() if key != "type_vocab_size"}
NARROW: dict[str, Any] = {**SHAPE, "embedding_size": 8}
DEBERTA = {
    **SHAPE,
    "num_hidden_layers": 1,
    "max_position_embeddings": CONTEXT,
    "type_vocab_size": 0,
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
ANSWERS = {**IDS, **START}
T5 = {
    **ANSWERS,
    "d_model": 12,
    "d_kv": 6,
    "d_ff": 16,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "layer_norm_epsilon": 0.05,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
BART = {
    **ANSWERS,
    "d_model": 12,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": CONTEXT,
    "scale_embedding": True,
}
EXAONE = {
    **IDS,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "layer_norm_epsilon": 0.05,
    "activation_function": "silu",
    "max_position_embeddings": CONTEXT,
    "rope_parameters": LLAMA3_ROPE,
}
GEMMA_VECTORS = {
    **IDS,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "rms_norm_eps": 0.05,
    "max_position_embeddings": CONTEXT,
    "sliding_window": 5,
    "vocab_size_per_layer_input": 36,
    "hidden_size_per_layer_input": 4,
    "final_logit_softcapping": 2.0,
}
GEMMA_ROPES = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 300.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
}

MORE = {
    "distilbert": Golden(
        "distilbert",
        {
            **IDS,
            "dim": 12,
            "hidden_dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "max_position_embeddings": CONTEXT,
            "sinusoidal_pos_embds": True,
        },
        dialect=4,
        dtype=BFLOAT,
        seed=1000,
    ),
    "xlm_roberta": Golden("xlm-roberta", PADDED, dtype=BFLOAT, seed=1001),
    "xlm_roberta_xl": Golden("xlm-roberta-xl", PADDED, dtype=BFLOAT, seed=1002),
    "camembert": Golden("camembert", {**PADDED, "hidden_act": "relu"}, dialect=4, dtype=BFLOAT, seed=1003),
    "electra": Golden("electra", {**NARROW, "hidden_act": "relu"}, dtype=BFLOAT, seed=1004),
    "electra_wide": Golden("electra", {**SHAPE, "embedding_size": 12}, dialect=4, dtype=BFLOAT, layout="headless", seed=1005),
    "albert": Golden("albert", {**NARROW, "num_hidden_layers": 3, "inner_group_num": 2}, dtype=BFLOAT, seed=1006),
    "mpnet": Golden("mpnet", {**TYPELESS, "num_hidden_layers": 2}, dtype=BFLOAT, seed=1007),
    "mt5": Golden("mt5", {**T5, "tie_word_embeddings": True}, dtype=BFLOAT, seed=1030),
    "umt5": Golden("umt5", {**T5, "tie_word_embeddings": False}, dialect=4, dtype=BFLOAT, seed=1021),
    "mbart": Golden("mbart", BART, dtype=BFLOAT, seed=1022),
    "pegasus": Golden("pegasus", {**BART, "activation_function": "relu"}, dialect=4, seed=1023),
    "m2m_100": Golden("m2m_100", BART, dtype=BFLOAT, seed=1024),
    "blenderbot": Golden("blenderbot", {**BART, "scale_embedding": False}, dialect=4, dtype=BFLOAT, seed=1025),
    "blenderbot_small": Golden("blenderbot-small", BART, dialect=4, dtype=BFLOAT, seed=1032),
    "modernbert": Golden(
        "modernbert",
        {
            **{key: value for key, value in SHAPE.items() if key not in ("layer_norm_eps", "type_vocab_size")},
            "norm_eps": 0.05,
            "hidden_size": 16,
            "global_attn_every_n_layers": 2,
            "local_attention": 6,
            "cls_token_id": 0,
            "sep_token_id": 0,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 300.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
            },
        },
        dtype=BFLOAT,
        seed=1008,
    ),
    "deberta": Golden("deberta-v2", {**DEBERTA, "position_buckets": 6, "norm_rel_ebd": "layer_norm"}, dialect=4, dtype=BFLOAT, seed=1009),
    "deberta_plain": Golden(
        "deberta-v2", {**DEBERTA, "max_relative_positions": 7, "position_biased_input": True, "type_vocab_size": 2}, dtype=BFLOAT, seed=1010
    ),
    "longt5": Golden("longt5", {**T5, "encoder_attention_type": "local", "local_radius": 5}, dtype=BFLOAT, seed=1031),
    "longt5_blocks": Golden(
        "longt5",
        {**T5, "encoder_attention_type": "transient-global", "local_radius": 5, "global_block_size": 4, "tie_word_embeddings": False},
        dtype=BFLOAT,
        seed=1027,
    ),
    "gemma3n": Golden(
        "gemma3n_text",
        {
            **GEMMA_VECTORS,
            "num_hidden_layers": 4,
            "intermediate_size": [10, 8, 10, 6],
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": [0.6, 0.0, 0.4, 0.3],
            "altup_num_inputs": 3,
            "altup_active_idx": 1,
            "laurel_rank": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 300.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
            },
        },
        dtype=BFLOAT,
        seed=1040,
    ),
    "gemma4": Golden(
        "gemma4",
        {
            "text_config": {
                **GEMMA_VECTORS,
                "rms_norm_eps": 0.5,  # the factor of the last layer shows by it alone
                "vocab_size_per_layer_input": 40,
                "num_hidden_layers": 4,
                "intermediate_size": 6,
                "global_head_dim": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_kv_shared_layers": 2,
                "use_double_wide_mlp": True,
                "rope_parameters": GEMMA_ROPES,
            },
            "vision_config": None,
            "audio_config": None,
        },
        dtype=BFLOAT,
        seed=1048,
    ),
    "gemma4_moe": Golden(
        "gemma4_text",
        {
            **GEMMA_VECTORS,
            "rms_norm_eps": 0.5,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 6,
            "global_head_dim": 8,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 5,
            "final_logit_softcapping": None,
            "rope_parameters": GEMMA_ROPES,
        },
        dtype=BFLOAT,
        seed=1043,
    ),
    "exaone": Golden("exaone", EXAONE, dialect=4, dtype=BFLOAT, seed=1053),
    "gemma3_vectors": Golden(
        "gemma3_text",
        {
            **IDS,
            "hidden_size": 12,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 6,
            "query_pre_attn_scalar": 3,
            "rms_norm_eps": 0.05,
            "max_position_embeddings": CONTEXT,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention"],
            "use_bidirectional_attention": True,
        },
        dtype=BFLOAT,
        layout="headless",
        seed=1011,
    ),
}
