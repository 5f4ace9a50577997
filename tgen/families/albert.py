"""ALBERT: BERT with one layer that runs many times, and embeddings narrower than the model."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.encoder import IGNORED, OLDER, encoder_model, post_norm_layer
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import ModelSpec, NormSpec, TransformSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is albert."""
    config.require("num_hidden_groups", [1])
    config.require("position_embedding_type", ["absolute"])
    config.require("is_decoder", [False])
    for key in ("net_structure_type", "num_memory_blocks", "down_scale_factor", "gap_size", "layers_to_keep"):
        config.raw(key)  # keys of an older program, which no code reads
    width, row = config.integer("hidden_size"), config.integer("embedding_size", default=128)
    norm = NormSpec("layer", config.number("layer_norm_eps", default=1e-12))
    context, activation = config.integer("max_position_embeddings", default=512), config.activation("hidden_act", default="gelu_new")
    layer = post_norm_layer(width, config.integer("num_attention_heads"), config.integer("intermediate_size"), activation, norm, config)
    return encoder_model(
        config,
        (layer,) * config.integer("inner_group_num", default=1, maximum=16),
        norm,
        PositionTable("learned", context),
        family="albert",
        width=width,
        context=context,
        transform=TransformSpec(activation, norm),
        types=config.integer("type_vocab_size", default=2),
        embedding_in=row,
        rounds=config.layers("num_hidden_layers"),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer.q": "attention.query",
        "mixer.k": "attention.key",
        "mixer.v": "attention.value",
        "mixer.out": "attention.dense",
        "mixer_norm": "attention.LayerNorm",
        "feed_forward.up": "ffn",
        "feed_forward.down": "ffn_output",
        "feed_forward_norm": "full_layer_layer_norm",
    }
    modules: Names = {
        "embedding": "albert.embeddings.word_embeddings",
        "encoder.positions": "albert.embeddings.position_embeddings",
        "encoder.types": "albert.embeddings.token_type_embeddings",
        "encoder.embedding_norm": "albert.embeddings.LayerNorm",
        "encoder.embedding_in": "albert.encoder.embedding_hidden_mapping_in",
        "head.transform.dense": "predictions.dense",
        "head.transform.norm": "predictions.LayerNorm",
        "head.out.bias": "predictions.bias",
        "head.out": "predictions.decoder",
    }
    repeated = {"predictions.decoder.bias": "predictions.bias"}
    layers = {"encoder": ("albert.encoder.albert_layer_groups.0.albert_layers", layer)}
    return make_table(spec, modules, layers, prefixes=("albert.",), repeated=repeated, ignored=IGNORED, older=OLDER)
