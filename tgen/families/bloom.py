"""BLOOM: ALiBi instead of position vectors, a norm on the embeddings, query-key-value interleaved head by head."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Interleaved, Names, Source, Table, make_table
from tgen.spec.positions import Alibi
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is bloom."""
    config.require("apply_residual_connection_post_layernorm", [False])
    width, heads = config.integer("n_embed", "hidden_size"), config.integer("n_head", "num_attention_heads")
    config.require("n_inner", [4 * width])
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    layer = LayerSpec(
        mixer=AttentionSpec(heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, bias=True, out_bias=True),
        feed_forward=MlpSpec(width=4 * width, activation="gelu_tanh", gated=False, bias=True),
        norm=norm,
    )
    return ModelSpec(
        family="bloom",
        vocab=config.integer("vocab_size"),
        width=width,
        # ALiBi sets no limit; this is the length the models were trained at.
        context=config.integer("seq_length", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(
            layers=(layer,) * config.layers("n_layer", "num_hidden_layers"),
            causal=True,
            final_norm=norm,
            bias=Alibi(heads),
            embedding_norm=norm,
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    heads = spec.stacks["decoder"].layers[0].attention.heads
    layer: Names = {
        "mixer_norm": "input_layernorm",
        "mixer.q": Source("self_attention.query_key_value", (Interleaved(0, 3, heads),)),
        "mixer.k": Source("self_attention.query_key_value", (Interleaved(1, 3, heads),)),
        "mixer.v": Source("self_attention.query_key_value", (Interleaved(2, 3, heads),)),
        "mixer.out": "self_attention.dense",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.up": "mlp.dense_h_to_4h",
        "feed_forward.down": "mlp.dense_4h_to_h",
    }
    modules: Names = {
        "embedding": "transformer.word_embeddings",
        "decoder.embedding_norm": "transformer.word_embeddings_layernorm",
        "decoder.final_norm": "transformer.ln_f",
        "head.out": "lm_head",
    }
    return make_table(spec, modules, {"decoder": ("transformer.h", layer)}, prefixes=("transformer.",))
