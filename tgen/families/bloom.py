"""BLOOM: ALiBi instead of position vectors, a norm on the embeddings, query-key-value interleaved head by head."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Source, Table, interleaved
from tgen.spec import Alibi, AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is bloom."""
    config.require("apply_residual_connection_post_layernorm", [False])
    width, heads = config.integer("n_embed", "hidden_size"), config.integer("n_head", "num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    layer = LayerSpec(
        attention=AttentionSpec(heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, bias=True, out_bias=True),
        mlp=MlpSpec(width=4 * width, activation="gelu_tanh", gated=False, bias=True),
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
            layers=(layer,) * config.layers("n_layer", "num_hidden_layers"), final_norm=norm, bias=Alibi(heads), embedding_norm=norm
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    sources = {"embedding.weight": Source("transformer.word_embeddings.weight")}
    for kind in ("weight", "bias"):
        sources[f"decoder.embedding_norm.{kind}"] = Source(f"transformer.word_embeddings_layernorm.{kind}")
        sources[f"decoder.final_norm.{kind}"] = Source(f"transformer.ln_f.{kind}")
    for i, layer in enumerate(spec.decoder.layers):
        ours, theirs = f"decoder.layers.{i}", f"transformer.h.{i}"
        for kind in ("weight", "bias"):
            sources[f"{ours}.attention_norm.{kind}"] = Source(f"{theirs}.input_layernorm.{kind}")
            sources[f"{ours}.mlp_norm.{kind}"] = Source(f"{theirs}.post_attention_layernorm.{kind}")
            for index, name in enumerate("qkv"):
                take = interleaved(index, 3, layer.attention.heads)
                sources[f"{ours}.attention.{name}.{kind}"] = Source(f"{theirs}.self_attention.query_key_value.{kind}", take)
            sources[f"{ours}.attention.out.{kind}"] = Source(f"{theirs}.self_attention.dense.{kind}")
            sources[f"{ours}.mlp.up.{kind}"] = Source(f"{theirs}.mlp.dense_h_to_4h.{kind}")
            sources[f"{ours}.mlp.down.{kind}"] = Source(f"{theirs}.mlp.dense_4h_to_h.{kind}")
    if not spec.head.tied:
        sources["head.weight"] = Source("lm_head.weight")
    return Table(sources, prefixes=("transformer.",))
