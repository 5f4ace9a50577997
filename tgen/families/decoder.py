"""What the newer decoder-only families have in common: one stack, a head without extras, root-mean-square norms, a gated feed-forward."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tgen.families.config import Config
from tgen.families.table import Names
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec

ATTENTION: Names = {
    "mixer.q": "self_attn.q_proj",
    "mixer.k": "self_attn.k_proj",
    "mixer.v": "self_attn.v_proj",
    "mixer.out": "self_attn.o_proj",
    "mixer.q_norm": "self_attn.q_norm",
    "mixer.k_norm": "self_attn.k_norm",
}
FEED_FORWARD: Names = {"feed_forward.gate": "mlp.gate_proj", "feed_forward.up": "mlp.up_proj", "feed_forward.down": "mlp.down_proj"}
PRE_NORMS: Names = {"mixer_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
MODULES: Names = {"embedding": "model.embed_tokens", "decoder.final_norm": "model.norm", "head.out": "lm_head"}
BUFFERS = ("rotary_emb.inv_freq",)


def decoder_model(
    config: Config, layers: Iterable[LayerSpec], norm: NormSpec, *, context: int, tied: bool = False, head: Any = None, **stack: Any
) -> ModelSpec:
    """A model of one stack. `tied` holds if the folder does not say; `head` and `stack` are further fields of these records."""
    return ModelSpec(
        family=config.model_type,
        vocab=config.integer("vocab_size"),
        width=config.integer("hidden_size"),
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=tied), **(head or {})),
        decoder=StackSpec(layers=tuple(layers), causal=True, final_norm=norm, **stack),
    )


def grouped_attention(config: Config, head_dim: int, *, bias: bool = False, **own: Any) -> AttentionSpec:
    """Attention with the usual scale, whose heads share keys in groups; `own` are further fields of the record."""
    heads = config.integer("num_attention_heads")
    return AttentionSpec(heads, config.kv_heads(heads), head_dim, head_dim**-0.5, bias=bias, out_bias=bias, **own)


def gated_mlp(config: Config, *, bias: bool = False) -> MlpSpec:
    """A feed-forward part with a gate, SiLU by default."""
    return MlpSpec(config.integer("intermediate_size"), config.activation("hidden_act", default="silu"), gated=True, bias=bias)
