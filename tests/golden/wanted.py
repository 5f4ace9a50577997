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


@dataclass(frozen=True)
class Golden:
    """A checkpoint to write: what transformers is asked for, and the ways of real folders that it shall show."""

    model_type: str
    config: dict[str, Any]
    dialect: int = 5
    dtype: str = "float32"
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
        {**LLAMA, "num_hidden_layers": 3, "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
        dtype=BFLOAT,
    ),
    "qwen3": Golden("qwen3", {**LLAMA, "head_dim": 12, "tie_word_embeddings": True}, dtype=BFLOAT),
    "bloom": Golden("bloom", {**BLOOM, "hidden_size": 16, "n_head": 4}, dialect=4),
    # Six is no power of two: the slopes of ALiBi are then taken from two series.
    "bloom_six": Golden("bloom", {**BLOOM, "hidden_size": 24, "n_head": 6}, dtype=HALF),
    "gpt_neox": Golden(
        "gpt_neox", {**NEOX, "hidden_size": 32, "rotary_pct": 0.5, "rotary_emb_base": 300}, dialect=4, dtype=HALF, layout="masks"
    ),
    "gpt_neox_serial": Golden(
        "gpt_neox",
        {**NEOX, "hidden_size": 32, "num_attention_heads": 2, "use_parallel_residual": False, "attention_bias": False},
        dtype=BFLOAT,
    ),
    "opt": Golden("opt", OPT, dtype=HALF),
    "opt_post": Golden("opt", {**OPT, "do_layer_norm_before": False, "enable_bias": False}, dialect=4, dtype=BFLOAT),
    "phi": Golden("phi", {**NEOX, **TWO_HEADS, "qk_layernorm": True, "rope_parameters": {"rope_theta": 90.0}}, dtype=BFLOAT),
    "phi3": Golden(
        "phi3", {**LLAMA, **TWO_HEADS, "pad_token_id": 1, "sliding_window": 5, "partial_rotary_factor": 0.5}, dialect=4, dtype=BFLOAT
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
}
