"""Which golden checkpoints there are: tiny models of each family, with the ways of real folders. Knows neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VOCAB, CONTEXT = 288, 64
# Every number differs from what a family would assume: an epsilon of 1e-5 that is not read would not show.
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {
    **TOKENS,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 0.05,
    "tie_word_embeddings": False,
}
GPT2 = {**TOKENS, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "layer_norm_epsilon": 0.05}
BLOOM = {**TOKENS, "n_layer": 2, "layer_norm_epsilon": 0.05}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Small enough that some rotations are slowed, some kept and some blended.
    "original_max_position_embeddings": 16,
}
NEOX = {key: value for key, value in LLAMA.items() if key not in ("rms_norm_eps", "num_key_value_heads")} | {"layer_norm_eps": 0.05}
OPT = {
    **TOKENS,
    "pad_token_id": 1,
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
TWO_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}  # wide enough to rotate more than a pair of half of each
# Heads of an odd width beside the width, and bounds that bite.
GEMMA = {**LLAMA, "tie_word_embeddings": True, "pad_token_id": 1, "head_dim": 6, "query_pre_attn_scalar": 3, "sliding_window": 5}
START = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
T5 = {
    **TOKENS,
    **START,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 4,
    "layer_norm_epsilon": 0.05,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
BART = {
    **TOKENS,
    **START,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": CONTEXT,
}
BERT = {**NEOX, "tie_word_embeddings": True, "pad_token_id": 1, "type_vocab_size": 2}
# The families that came later have a small vocabulary: most of a golden is logits.
TINY = {**TOKENS, "vocab_size": 96, "pad_token_id": 1}
SMALL = {**LLAMA, **TINY}
LAYERS = {key: value for key, value in SMALL.items() if key != "rms_norm_eps"}
LAYER_EPS = {**LAYERS, "layer_norm_eps": 0.05}
GEMMA_ONE = {key: GEMMA[key] for key in ("tie_word_embeddings", "pad_token_id", "head_dim")}
GPTJ = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "layer_norm_epsilon": 0.05}
FALCON = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "layer_norm_epsilon": 0.05,
    "ffn_hidden_size": 20,
    "max_position_embeddings": CONTEXT,
    "rope_parameters": {"rope_theta": 60.0},
}
# Some pairs are kept, some slowed down, and one is between.
YARN = {
    "rope_type": "yarn",
    "rope_theta": 50.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 1.5,
    "beta_slow": 0.3,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 80.0}
MINISTRAL_ROPE = {
    **YARN,
    "original_max_position_embeddings": 4,
    "mscale": 1.5,
    "mscale_all_dim": 0.8,
    "llama_4_scaling_beta": 0.6,
}
MROPE = {"rope_type": "default", "rope_theta": 70.0, "mrope_section": [1, 1, 2]}
VISION = {"num_hidden_layers": 1, "num_attention_heads": 2}
QWEN_VISION = {"depth": 1, "embed_dim": 8, "hidden_size": 16, "num_heads": 2, "patch_size": 2, "mlp_ratio": 1}


@dataclass(frozen=True)
class Golden:
    """A checkpoint to write: what transformers is asked for, and the ways of real folders that it shall show."""

    model_type: str
    config: dict[str, Any]
    dialect: int = 5
    dtype: str = "float32"
    seed: int | None = None  # None: its place in the list
    layout: str = "whole"  # or sharded, bin, headless, or a key of LAYOUTS in make.py


BFLOAT, HALF = "bfloat16", "float16"
GOLDENS = {
    "gpt2": Golden("gpt2", GPT2, dialect=4, layout="bare"),
    # With the optional biases, which no other golden has.
    "llama2": Golden("llama", {**LLAMA, "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}, dialect=4, layout="bin"),
    "llama3": Golden("llama", {**LLAMA, "head_dim": 8, "tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}, layout="sharded"),
    "mistral": Golden("mistral", {**LLAMA, "sliding_window": 6, "rope_parameters": {"rope_theta": 500.0}}, dialect=4),
    "qwen2": Golden(
        "qwen2",
        {
            **LLAMA,
            "tie_word_embeddings": True,
            "sliding_window": 6,
            "use_sliding_window": False,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 200.0, "factor": 2.0},
        },
        dialect=4,
    ),
    "qwen2_window": Golden(
        "qwen2",
        {**LLAMA, "vocab_size": 96, "num_hidden_layers": 3, "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
        dtype=BFLOAT,
    ),
    "qwen3": Golden("qwen3", {**LLAMA, "head_dim": 12, "tie_word_embeddings": True}, dtype=BFLOAT),
    "bloom": Golden("bloom", {**BLOOM, "hidden_size": 16, "n_head": 4}, dialect=4),
    # Six is no power of two: the slopes of ALiBi are then taken from two series.
    "bloom_six": Golden("bloom", {**BLOOM, "vocab_size": 96, "hidden_size": 24, "n_head": 6}, dtype=HALF),
    "gpt_neox": Golden(
        "gpt_neox",
        {**NEOX, "vocab_size": 96, "hidden_size": 32, "rotary_pct": 0.5, "rotary_emb_base": 300},
        dialect=4,
        dtype=HALF,
        layout="masks",
    ),
    "gpt_neox_serial": Golden(
        "gpt_neox",
        {**NEOX, "vocab_size": 96, "hidden_size": 32, "num_attention_heads": 2, "use_parallel_residual": False, "attention_bias": False},
        dtype=BFLOAT,
    ),
    "opt": Golden("opt", {**OPT, "vocab_size": 96}, dtype=HALF),
    "opt_post": Golden("opt", {**OPT, "vocab_size": 96, "do_layer_norm_before": False, "enable_bias": False}, dialect=4, dtype=BFLOAT),
    "phi": Golden(
        "phi", {**NEOX, **TWO_HEADS, "vocab_size": 96, "qk_layernorm": True, "rope_parameters": {"rope_theta": 90.0}}, dtype=BFLOAT
    ),
    "phi3": Golden(
        "phi3",
        {**LLAMA, **TWO_HEADS, "vocab_size": 96, "pad_token_id": 1, "sliding_window": 5, "partial_rotary_factor": 0.5},
        dialect=4,
        dtype=BFLOAT,
    ),
    "gemma2": Golden("gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, dialect=4, dtype=BFLOAT),
    "gemma3": Golden(
        "gemma3_text",
        {
            **GEMMA,
            "num_hidden_layers": 4,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
            },
        },
        dtype=BFLOAT,
    ),
    "t5": Golden("t5", {**T5, "num_layers": 3, "num_decoder_layers": 2}, dtype=BFLOAT, layout="copies"),
    "t5_flan": Golden("t5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, dialect=4, dtype=BFLOAT),
    "bart": Golden("bart", BART, dialect=4, layout="copies"),
    "bart_scaled": Golden("bart", {**BART, "encoder_layers": 1, "scale_embedding": True, "activation_function": "relu"}, dtype=BFLOAT),
    "marian": Golden(
        "marian",
        {**BART, "decoder_start_token_id": 1, "scale_embedding": True, "activation_function": "swish"},
        dialect=4,
        layout="copies",
    ),
    "bert": Golden("bert", BERT, dialect=4, layout="tensorflow"),
    "bert_headless": Golden("bert", {**BERT, "hidden_act": "relu"}, dtype=BFLOAT, layout="headless"),
    "roberta": Golden("roberta", {**BERT, "pad_token_id": 3, "type_vocab_size": 1, "max_position_embeddings": CONTEXT + 4}, dtype=BFLOAT),
    "gemma": Golden("gemma", {**SMALL, **GEMMA_ONE, "hidden_act": "gelu"}, dialect=4, dtype=BFLOAT),
    "gemma3_images": Golden(
        "gemma3",
        {
            "text_config": {**GEMMA, "vocab_size": 96, "sliding_window_pattern": 2, "num_hidden_layers": 2},
            "vision_config": {**VISION, "hidden_size": 8, "intermediate_size": 8, "image_size": 4, "patch_size": 2},
            "mm_tokens_per_image": 4,
            "image_token_index": 5,
        },
        dtype=BFLOAT,
        layout="inside",
    ),
    "smollm3": Golden(
        "smollm3",
        {**SMALL, "head_dim": 12, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 5, "rope_parameters": YARN},
        dtype=BFLOAT,
    ),
    "starcoder2": Golden("starcoder2", {**LAYERS, "norm_epsilon": 0.05, "sliding_window": 6}, dialect=4),
    "gpt_neo": Golden(
        "gpt_neo",
        {
            **TINY,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_layers": 3,
            "num_heads": 4,
            "max_position_embeddings": CONTEXT,
            "layer_norm_epsilon": 0.05,
            "attention_types": [[["global", "local"], 1], [["local"], 1]],
            "window_size": 5,
        },
        dtype=BFLOAT,
    ),
    "gptj": Golden("gptj", {**TINY, **GPTJ, "rotary_dim": 4}, dtype=HALF),
    "codegen": Golden("codegen", {**TINY, **GPTJ, "rotary_dim": 6, "n_inner": 20}, dialect=4, dtype=HALF),
    "stablelm": Golden(
        "stablelm",
        {**LAYER_EPS, **TWO_HEADS, "use_qkv_bias": True, "partial_rotary_factor": 0.5, "rope_parameters": DYNAMIC},
        dtype=BFLOAT,
    ),
    "stablelm_parallel": Golden(
        "stablelm", {**LAYER_EPS, **TWO_HEADS, "hidden_size": 32, "use_parallel_residual": True}, dialect=4, dtype=HALF
    ),
    "granite": Golden(
        "granite",
        {
            **SMALL,
            "tie_word_embeddings": True,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.3,
            "logits_scaling": 2.5,
        },
        dialect=4,
        dtype=BFLOAT,
    ),
    "olmo": Golden("olmo", {**LAYERS, "clip_qkv": 0.7}, dialect=4),
    "olmo2": Golden("olmo2", SMALL, dtype=BFLOAT),
    "olmo3": Golden(
        "olmo3",
        {
            **SMALL,
            "hidden_size": 24,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {**YARN, "attention_factor": 1.4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        },
        dtype=BFLOAT,
    ),
    "cohere": Golden("cohere", {**LAYER_EPS, "use_qk_norm": True, "logit_scale": 0.4, "tie_word_embeddings": True}, dtype=BFLOAT),
    "cohere2": Golden(
        "cohere2",
        {**LAYER_EPS, "sliding_window": 5, "sliding_window_pattern": 2, "logit_scale": 0.4, "tie_word_embeddings": True},
        dialect=4,
    ),
    "glm": Golden("glm", {**SMALL, "head_dim": 12}, dialect=4, dtype=BFLOAT),
    "glm4": Golden("glm4", {**SMALL, "head_dim": 8, "partial_rotary_factor": 0.75, "attention_bias": False}, dtype=BFLOAT),
    "exaone4": Golden("exaone4", {**SMALL, "sliding_window": 5, "sliding_window_pattern": 2}, dtype=BFLOAT),
    "ernie4_5": Golden("ernie4_5", {**SMALL, "head_dim": 6, "use_bias": True, "rope_parameters": {"rope_theta": 60.0}}),
    "hunyuan": Golden(
        "hunyuan_v1_dense",
        {**SMALL, "head_dim": 6, "attention_bias": True, "rope_parameters": {**DYNAMIC, "alpha": 20.0, "rope_theta": 50.0}},
        dtype=BFLOAT,
    ),
    "apertus": Golden("apertus", {**SMALL, "head_dim": 8, "rope_parameters": LLAMA3_ROPE}, dtype=BFLOAT),
    "arcee": Golden(
        "arcee", {**SMALL, "head_dim": 10, "rope_parameters": {**YARN, "truncate": False, "beta_fast": 4.0}}, dialect=4, dtype=BFLOAT
    ),
    "nemotron": Golden(
        "nemotron", {**LAYERS, **TWO_HEADS, "norm_eps": 0.05, "attention_bias": True, "rope_parameters": {"rope_theta": 40.0}}, dtype=BFLOAT
    ),
    "seed_oss": Golden(
        "seed_oss", {**SMALL, "head_dim": 6, "attention_out_bias": True, "mlp_bias": True, "attention_bias": False}, dtype=BFLOAT
    ),
    "falcon": Golden("falcon", {**TINY, **FALCON}, dialect=4),
    "falcon_grouped": Golden("falcon", {**TINY, **FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}, dtype=BFLOAT),
    "falcon_serial": Golden("falcon", {**TINY, **FALCON, "parallel_attn": False, "multi_query": False}, dtype=BFLOAT),
    "mpt": Golden(
        "mpt",
        {
            **TINY,
            "d_model": 24,
            "n_heads": 6,
            "n_layers": 2,
            "max_seq_len": CONTEXT,
            "layer_norm_epsilon": 0.05,
            "attn_config": {"alibi": True, "clip_qkv": 0.7, "softmax_scale": 0.6},
        },
        dtype=BFLOAT,
    ),
    "ministral3": Golden("ministral3", {**SMALL, "head_dim": 12, "rope_parameters": MINISTRAL_ROPE}, dtype=BFLOAT),
    "mistral3": Golden(
        "mistral3",
        {
            "text_config": {**SMALL, "model_type": "mistral", "head_dim": 6, "sliding_window": 6},
            "vision_config": {**VISION, "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "head_dim": 4, "patch_size": 2},
            "image_token_index": 5,
            "spatial_merge_size": 1,
            "tie_word_embeddings": False,
        },
        dtype=BFLOAT,
    ),
    "nanochat": Golden("nanochat", {**SMALL, "final_logit_softcapping": 3.0}, dtype=BFLOAT),
    "opt_projected": Golden("opt", {**OPT, "vocab_size": 96, "word_embed_proj_dim": 12, "do_layer_norm_before": False}, dtype=HALF),
    "gpt2_inverse": Golden("gpt2", {**GPT2, "vocab_size": 96, "scale_attn_by_inverse_layer_idx": True}, dialect=4, dtype=BFLOAT),
    "qwen2_vl": Golden("qwen2_vl", {"text_config": {**SMALL, **TWO_HEADS, "rope_parameters": MROPE}, "vision_config": QWEN_VISION}),
    "qwen2_5_vl": Golden(
        "qwen2_5_vl",
        {
            "text_config": {**SMALL, **TWO_HEADS, "rope_parameters": MROPE},
            "vision_config": {
                **QWEN_VISION,
                "hidden_size": 16,
                "out_hidden_size": 16,
                "intermediate_size": 8,
                "fullatt_block_indexes": [0],
            },
        },
        dtype=BFLOAT,
    ),
    "qwen3_vl": Golden(
        "qwen3_vl",
        {
            "text_config": {**SMALL, "head_dim": 8, "rope_parameters": {**MROPE, "mrope_interleaved": True}},
            "vision_config": {
                **QWEN_VISION,
                "hidden_size": 16,
                "out_hidden_size": 16,
                "intermediate_size": 8,
                "num_position_embeddings": 4,
                "deepstack_visual_indexes": [0],
            },
        },
        dtype=BFLOAT,
    ),
    "phi3_long": Golden(
        "phi3",
        {
            **SMALL,
            **TWO_HEADS,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.0, 1.2, 1.9],
                "long_factor": [2.0, 3.0, 4.0],
                "partial_rotary_factor": 0.75,
            },
        },
        dialect=4,
        dtype=BFLOAT,
    ),
    "llama_proportional": Golden(
        "llama",
        {
            **SMALL,
            "head_dim": 12,
            "rope_parameters": {"rope_type": "proportional", "rope_theta": 50.0, "factor": 2.0, "partial_rotary_factor": 0.5},
        },
        dtype=BFLOAT,
    ),
}
