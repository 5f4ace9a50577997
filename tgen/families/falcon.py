"""Falcon 7B, 40B, 180B: attention and feed-forward side by side, few key-value heads, query-key-value fused group by group."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Interleaved, Names, Source, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is falcon."""
    config.require("alibi", [False])
    config.require("apply_residual_connection_post_layernorm", [False])
    width, heads = config.integer("hidden_size", "n_embed"), config.integer("num_attention_heads", "n_head")
    head_dim = config.head_dim(width, heads)
    grouped, parallel = config.flag("new_decoder_architecture", default=False), config.flag("parallel_attn", default=True)
    if grouped:
        config.require("parallel_attn", [True])
    else:
        config.require("num_ln_in_parallel_attn", [1])
    one = config.flag("multi_query", default=True) and not grouped
    stored = config.integer("num_kv_heads", "n_head_kv", default=heads)  # counts only where heads are grouped
    kv_heads = 1 if one else stored if grouped else heads
    config.require("num_kv_heads", [count for count in (stored,) if not grouped or heads % count == 0])
    bias, norm = config.flag("bias", default=False), NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    inner = config.integer("ffn_hidden_size", default=4 * width)
    config.require("ff_factor", [inner // width])  # repeats the inner width
    layer = LayerSpec(
        AttentionSpec(heads, kv_heads, head_dim, head_dim**-0.5, bias, bias, rope=config.rope(head_dim)),
        MlpSpec(inner, config.activation("activation", default="gelu"), False, bias),
        norm,
        residual="parallel" if parallel else "pre",
        shared_norm=parallel and not (grouped and config.integer("num_ln_in_parallel_attn", default=2, maximum=2) == 2),
    )
    return ModelSpec(
        family="falcon",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.context(default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(layers=(layer,) * config.layers("num_hidden_layers", "n_layer"), causal=True, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer = spec.stacks["decoder"].layers[0]
    groups, size = layer.attention.kv_heads, layer.attention.heads // layer.attention.kv_heads
    two = layer.residual == "parallel" and not layer.shared_norm
    fused = "self_attention.query_key_value"
    names: Names = {
        "mixer_norm": "ln_attn" if two else "input_layernorm",
        "mixer.q": Source(fused, (Interleaved(0, size + 2, groups, count=size),)),
        "mixer.k": Source(fused, (Interleaved(size, size + 2, groups),)),
        "mixer.v": Source(fused, (Interleaved(size + 1, size + 2, groups),)),
        "mixer.out": "self_attention.dense",
        "feed_forward_norm": "ln_mlp" if two else "post_attention_layernorm",
        "feed_forward.up": "mlp.dense_h_to_4h",
        "feed_forward.down": "mlp.dense_4h_to_h",
    }
    modules: Names = {"embedding": "transformer.word_embeddings", "decoder.final_norm": "transformer.ln_f", "head.out": "lm_head"}
    ignored = ("rotary_emb.inv_freq", "self_attention.rotary.inv_freq")
    return make_table(spec, modules, {"decoder": ("transformer.h", names)}, prefixes=("transformer.",), ignored=ignored)
