"""BART and Marian: encoder and decoder with norms after each sum.

BART learns its positions (the first two rows unused) and norms the embeddings; Marian computes sines and scales the embeddings.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import ONE_ROW, Names, Source, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, PositionTable, StackSpec

UNUSED_ROWS = 2


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is bart or marian."""
    marian = config.model_type == "marian"
    for key in ("normalize_before", "add_final_layer_norm", "add_bias_logits", "do_blenderbot_90_layernorm"):
        config.require(key, [False])
    config.require("normalize_embedding", [not marian])
    config.require("static_position_embeddings", [marian])
    config.require("share_encoder_decoder_embeddings", [True])
    config.require("is_decoder", [False])
    width, vocab = config.integer("d_model"), config.integer("vocab_size")
    config.require("decoder_vocab_size", [vocab])
    context, norm = config.integer("max_position_embeddings", default=1024), NormSpec("layer", 1e-5)
    positions = PositionTable("sinusoid", context) if marian else PositionTable("learned", context + UNUSED_ROWS, UNUSED_ROWS)
    activation = config.activation("activation_function", default="gelu")

    def stack(name: str, *, decoder: bool) -> StackSpec:
        heads = config.integer(f"{name}_attention_heads")
        head_dim = config.head_dim(width, heads)
        attention = AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=True, out_bias=True)
        mlp = MlpSpec(config.integer(f"{name}_ffn_dim"), activation, gated=False, bias=True)
        layer = LayerSpec(attention, mlp, norm, residual="post", cross=attention if decoder else None)
        return StackSpec(
            layers=(layer,) * config.layers(f"{name}_layers"),
            causal=decoder,
            final_norm=None,
            positions=positions,
            embedding_norm=None if marian else norm,
            embedding_scale=width**0.5 if config.flag("scale_embedding", default=False) else None,
        )

    config.raw("num_hidden_layers")  # repeats encoder_layers
    return ModelSpec(
        family="bart",
        vocab=vocab,
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True), bias=True),
        encoder=stack("encoder", decoder=False),
        decoder=stack("decoder", decoder=True),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "self_attn_layer_norm",
        "cross_norm": "encoder_attn_layer_norm",
        "feed_forward_norm": "final_layer_norm",
        "feed_forward.up": "fc1",
        "feed_forward.down": "fc2",
    }
    for ours, theirs in (("mixer", "self_attn"), ("cross", "encoder_attn")):
        layer |= {f"{ours}.{part}": f"{theirs}.{part}_proj" for part in ("q", "k", "v", "out")}
    modules: Names = {"embedding": "model.shared", "head.out": "lm_head", "head.out.bias": Source("final_logits_bias", ONE_ROW)}
    for stack in ("encoder", "decoder"):
        modules[f"{stack}.positions"] = f"model.{stack}.embed_positions"
        modules[f"{stack}.embedding_norm"] = f"model.{stack}.layernorm_embedding"
    layers = {stack: (f"model.{stack}.layers", layer) for stack in ("encoder", "decoder")}
    repeated = {f"model.{stack}.embed_tokens.weight": "model.shared.weight" for stack in layers}
    # Marian's files may hold the sines, which the executor computes.
    positions = spec.stacks["encoder"].positions
    ignored = ("embed_positions.weight",) if positions and positions.kind == "sinusoid" else ()
    return make_table(spec, modules, layers, prefixes=("model.",), repeated=repeated, ignored=ignored, optional=("head.out.bias",))
