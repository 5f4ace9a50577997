"""GPT-NeoX and Pythia: attention and feed-forward side by side, part of each head rotated, query-key-value interleaved head by head."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Interleaved, Names, Source, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt_neox."""
    config.require("is_decoder", [False, True])  # it changes nothing in a model without an encoder
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("layer_norm_eps", default=1e-5))
    bias = config.flag("attention_bias", default=True)
    rope = config.rope(head_dim, partial=0.25)
    layer = LayerSpec(
        mixer=AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=bias, out_bias=bias, rope=rope),
        feed_forward=MlpSpec(config.integer("intermediate_size"), config.activation("hidden_act", default="gelu"), gated=False, bias=True),
        norm=norm,
        residual="parallel" if config.flag("use_parallel_residual", default=True) else "pre",
    )
    return ModelSpec(
        family="gpt_neox",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("max_position_embeddings", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=False)),
        decoder=StackSpec(layers=(layer,) * config.layers("num_hidden_layers"), causal=True, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    heads = spec.stacks["decoder"].layers[0].attention.heads
    layer: Names = {
        "mixer_norm": "input_layernorm",
        "mixer.q": Source("attention.query_key_value", (Interleaved(0, 3, heads),)),
        "mixer.k": Source("attention.query_key_value", (Interleaved(1, 3, heads),)),
        "mixer.v": Source("attention.query_key_value", (Interleaved(2, 3, heads),)),
        "mixer.out": "attention.dense",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.up": "mlp.dense_h_to_4h",
        "feed_forward.down": "mlp.dense_4h_to_h",
    }
    modules: Names = {"embedding": "gpt_neox.embed_in", "decoder.final_norm": "gpt_neox.final_layer_norm", "head.out": "embed_out"}
    ignored = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
    return make_table(spec, modules, {"decoder": ("gpt_neox.layers", layer)}, prefixes=("gpt_neox.",), ignored=ignored)
