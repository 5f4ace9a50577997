"""Says how the metadata of a GGUF file become the config.json that a family reads, with one entry for each architecture of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tgen.gguf_header import TensorInfo

Tensors = Mapping[str, TensorInfo]
Values = dict[str, Any]

# Keys of the metadata, without the architecture's name in front, and the keys of config.json that they become.
SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
DECODER = SIZES | {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
}
EXPERTS = {
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
SOFTCAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
LOCAL = {"rope.freq_base_swa": "rope_local_base_freq", "attention.sliding_window_pattern": "sliding_window_pattern"}
NORMS = {"attention.layer_norm_epsilon": "layer_norm_eps"}
GRANITE = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
GPT_OSS = {
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "intermediate_size",
}
GPT2 = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
T5 = {
    "context_length": "n_positions",
    "embedding_length": "d_model",
    "block_count": "num_layers",
    "decoder_block_count": "num_decoder_layers",
    "feed_forward_length": "d_ff",
    "attention.head_count": "num_heads",
    "attention.key_length": "d_kv",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "attention.relative_buckets_count": "relative_attention_num_buckets",
    "decoder_start_token_id": "decoder_start_token_id",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to read one architecture.

    `keys` maps keys of the metadata to keys of config.json. `fixed` are values that all its models share, and `derived` gives the values
    that follow from others and from the tensors. `interleaved` says that llama.cpp rotates pairs of neighbours, so that the converter has
    put the rows of queries and keys into that order. Keys in `redundant` are not read, because their values follow from others.
    """

    model_type: str
    keys: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    derived: Callable[[Values, Tensors], Values] = lambda values, tensors: {}  # noqa: ARG005
    interleaved: bool = False
    redundant: tuple[str, ...] = ()


def _llama(values: Values, tensors: Tensors) -> Values:
    """A Llama; with a window it is a Mistral, which llama.cpp does not tell apart."""
    return {"model_type": "mistral"} if values.get("sliding_window") else _biases(values, tensors)


def _biases(_: Values, tensors: Tensors) -> Values:
    """Whether attention and the feed-forward part have biases."""
    return {"attention_bias": "blk.0.attn_output.bias" in tensors, "mlp_bias": "blk.0.ffn_up.bias" in tensors}


def _gemma2(values: Values, _: Tensors) -> Values:
    """The 27B model, which has 46 layers, scales attention scores in its own way, and the metadata do not say so."""
    return {"query_pre_attn_scalar": _width_per_head(values) if values["num_hidden_layers"] == 46 else values["head_dim"]}


def _gemma3(values: Values, _: Tensors) -> Values:
    """The 27B model, which has 62 layers, does as that of Gemma 2."""
    return {"query_pre_attn_scalar": _width_per_head(values) if values["num_hidden_layers"] == 62 else values["head_dim"]}


def _width_per_head(values: Values) -> int:
    return int(values["hidden_size"] // values["num_attention_heads"])


def _phi3(values: Values, _: Tensors) -> Values:
    """A window of 0 means that there is none."""
    return {"sliding_window": values.get("sliding_window") or None}


def _bert(_: Values, tensors: Tensors) -> Values:
    return {"type_vocab_size": tensors["token_types.weight"].shape[0] if "token_types.weight" in tensors else 1}


def _one_bias(_: Values, tensors: Tensors) -> Values:
    """Whether all matrices have biases."""
    return {"use_bias": "blk.0.attn_output.bias" in tensors}


def _olmo(values: Values, _: Tensors) -> Values:
    """llama.cpp stores Olmo 3 as an Olmo 2 with windows; the layers with a window may have their own rotations."""
    if not values.get("sliding_window"):
        return {"model_type": "olmo2"}
    if (local := values.get("rope_local_base_freq")) is None:
        return {"model_type": "olmo3"}
    full = {"rope_theta": values.get("rope_theta"), **values.get("rope_scaling", {})}
    ropes = {"full_attention": full, "sliding_attention": {"rope_theta": local}}
    return {"model_type": "olmo3", "rope_parameters": ropes} | dict.fromkeys(("rope_local_base_freq", "rope_theta", "rope_scaling"))


def _seed_oss(_: Values, tensors: Tensors) -> Values:
    names = {"attention_bias": "attn_q", "attention_out_bias": "attn_output", "mlp_bias": "ffn_up"}
    return {key: f"blk.0.{name}.bias" in tensors for key, name in names.items()}


def _gpt_oss(values: Values, _: Tensors) -> Values:
    """GPT-OSS does not round the borders of YaRN's ramp. The metadata do not say so, and llama.cpp rounds them."""
    return {"rope_scaling": {**values.get("rope_scaling", {}), "truncate": False}}


def _t5(_: Values, tensors: Tensors) -> Values:
    """T5 1.0 has no gate and ties its head to the embedding; UMT5 has a table of relative positions in each layer."""
    gated, own = "enc.blk.0.ffn_gate.weight" in tensors, "enc.blk.1.attn_rel_b.weight" in tensors
    return {
        "model_type": "umt5" if own else "t5",
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": not gated,
    }


ARCHITECTURES = {
    "bert": Architecture("bert", SIZES | NORMS, derived=_bert, redundant=("attention.causal",)),
    "gemma": Architecture("gemma", DECODER),
    "gemma2": Architecture("gemma2", DECODER | SOFTCAPS, derived=_gemma2),
    "gemma3": Architecture("gemma3_text", DECODER | SOFTCAPS | LOCAL, derived=_gemma3),
    "ernie4_5": Architecture("ernie4_5", DECODER, derived=_one_bias, interleaved=True),
    "gpt-oss": Architecture("gpt_oss", DECODER | GPT_OSS, derived=_gpt_oss),
    "granite": Architecture("granite", DECODER | GRANITE, derived=_biases, interleaved=True),
    "gpt2": Architecture("gpt2", GPT2),
    "llama": Architecture("llama", DECODER, derived=_llama, interleaved=True),
    "olmo2": Architecture("olmo2", DECODER | LOCAL, derived=_olmo),
    "phi3": Architecture("phi3", DECODER, derived=_phi3),
    "qwen2": Architecture("qwen2", DECODER),
    "qwen2moe": Architecture("qwen2_moe", DECODER | EXPERTS | {"expert_count": "num_experts"}, {"norm_topk_prob": False}),
    "qwen3": Architecture("qwen3", DECODER),
    "qwen3moe": Architecture("qwen3_moe", DECODER | EXPERTS | {"expert_count": "num_experts"}, {"norm_topk_prob": True}),
    "seed_oss": Architecture("seed_oss", DECODER, derived=_seed_oss),
    "smollm3": Architecture("smollm3", DECODER, derived=_biases, interleaved=True),
    "starcoder2": Architecture("starcoder2", DECODER | {"attention.layer_norm_epsilon": "norm_epsilon"}, derived=_one_bias),
    "t5": Architecture("t5", T5, derived=_t5, redundant=("attention.layer_norm_epsilon",)),
}
MIXTRAL = Architecture(
    "mixtral", DECODER | {"expert_used_count": "num_experts_per_tok", "expert_count": "num_local_experts"}, interleaved=True
)
