"""From the metadata of a GGUF file to the config.json that the family reads: one entry for each architecture of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tgen.gguf_header import TensorInfo

Tensors = Mapping[str, TensorInfo]
Values = dict[str, Any]

# Each key of the metadata, behind the name of the architecture, and that of config.json for it.
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
    """How to read one architecture: its `keys`, what it `says` whatever the metadata hold, and what its tensors tell (`seen`).

    `interleaved` says that llama.cpp rotates pairs of neighbours, so that the converter has put the rows of queries and keys into that
    order. Values of `repeated` keys follow from others.
    """

    model_type: str
    keys: Mapping[str, str]
    says: Mapping[str, Any] = field(default_factory=dict)
    seen: Callable[[Values, Tensors], Values] = lambda values, tensors: {}  # noqa: ARG005
    interleaved: bool = False
    repeated: tuple[str, ...] = ()


def _llama(values: Values, tensors: Tensors) -> Values:
    """Llama, some of whose kin have biases, or Mistral, which may have windows."""
    if values.get("sliding_window"):
        return {"model_type": "mistral"}
    return {"attention_bias": "blk.0.attn_output.bias" in tensors, "mlp_bias": "blk.0.ffn_up.bias" in tensors}


def _gemma2(values: Values, _: Tensors) -> Values:
    """The largest of Gemma 2 scales its scores otherwise than the others, and the metadata do not say so."""
    return {"query_pre_attn_scalar": _share(values) if values["num_hidden_layers"] == 46 else values["head_dim"]}


def _gemma3(values: Values, _: Tensors) -> Values:
    """The largest of Gemma 3 likewise."""
    return {"query_pre_attn_scalar": _share(values) if values["num_hidden_layers"] == 62 else values["head_dim"]}


def _share(values: Values) -> int:
    return int(values["hidden_size"] // values["num_attention_heads"])


def _phi3(values: Values, _: Tensors) -> Values:
    """A window of 0 is none."""
    return {"sliding_window": values.get("sliding_window") or None}


def _bert(_: Values, tensors: Tensors) -> Values:
    return {"type_vocab_size": tensors["token_types.weight"].shape[0] if "token_types.weight" in tensors else 1}


def _starcoder2(_: Values, tensors: Tensors) -> Values:
    return {"use_bias": "blk.0.attn_output.bias" in tensors}


def _t5(_: Values, tensors: Tensors) -> Values:
    """Version 1.0 has no gate and ties its head; UMT5 has a table of distances in each layer."""
    gated, own = "enc.blk.0.ffn_gate.weight" in tensors, "enc.blk.1.attn_rel_b.weight" in tensors
    return {
        "model_type": "umt5" if own else "t5",
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": not gated,
    }


ARCHITECTURES = {
    "bert": Architecture("bert", SIZES | NORMS, seen=_bert, repeated=("attention.causal",)),
    "gemma": Architecture("gemma", DECODER),
    "gemma2": Architecture("gemma2", DECODER | SOFTCAPS, seen=_gemma2),
    "gemma3": Architecture("gemma3_text", DECODER | SOFTCAPS | LOCAL, seen=_gemma3),
    "gpt2": Architecture("gpt2", GPT2),
    "llama": Architecture("llama", DECODER, seen=_llama, interleaved=True),
    "phi3": Architecture("phi3", DECODER, seen=_phi3),
    "qwen2": Architecture("qwen2", DECODER),
    "qwen2moe": Architecture("qwen2_moe", DECODER | EXPERTS | {"expert_count": "num_experts"}, {"norm_topk_prob": False}),
    "qwen3": Architecture("qwen3", DECODER),
    "qwen3moe": Architecture("qwen3_moe", DECODER | EXPERTS | {"expert_count": "num_experts"}, {"norm_topk_prob": True}),
    "starcoder2": Architecture("starcoder2", DECODER | {"attention.layer_norm_epsilon": "norm_epsilon"}, seen=_starcoder2),
    "t5": Architecture("t5", T5, seen=_t5, repeated=("attention.layer_norm_epsilon",)),
}
MIXTRAL = Architecture(
    "mixtral", DECODER | {"expert_used_count": "num_experts_per_tok", "expert_count": "num_local_experts"}, interleaved=True
)
