"""MPNet: BERT without segment types, with T5's learned numbers per distance beside its learned positions."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.encoder import IGNORED, LM_HEAD, LM_HEAD_REPEATED, OLDER, encoder_model, post_norm_layer
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable, RelativeBias
from tgen.spec.records import ModelSpec, NormSpec, TransformSpec

BUCKETS, MAX_DISTANCE, OFFSET = 32, 128, 2  # OFFSET: position 0 has the row after that of the padding token, 1


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is mpnet."""
    width, heads, length = (
        config.integer("hidden_size"),
        config.integer("num_attention_heads"),
        config.integer("max_position_embeddings", minimum=OFFSET + 1),
    )
    norm, activation = NormSpec("layer", config.number("layer_norm_eps", default=1e-12)), config.activation("hidden_act", default="gelu")
    config.require("relative_attention_num_buckets", [BUCKETS])
    layer = post_norm_layer(width, heads, config.integer("intermediate_size"), activation, norm, config)
    return encoder_model(
        config,
        (layer,) * config.layers("num_hidden_layers"),
        norm,
        PositionTable("learned", length, OFFSET),
        family="mpnet",
        width=width,
        context=length - OFFSET,
        transform=TransformSpec("gelu", norm),
        bias=RelativeBias(heads, BUCKETS, MAX_DISTANCE, bidirectional=True),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer.q": "attention.attn.q",
        "mixer.k": "attention.attn.k",
        "mixer.v": "attention.attn.v",
        "mixer.out": "attention.attn.o",
        "mixer_norm": "attention.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    modules: Names = {
        "embedding": "mpnet.embeddings.word_embeddings",
        "encoder.positions": "mpnet.embeddings.position_embeddings",
        "encoder.embedding_norm": "mpnet.embeddings.LayerNorm",
        "encoder.bias": "mpnet.encoder.relative_attention_bias",
        **LM_HEAD,
    }
    layers = {"encoder": ("mpnet.encoder.layer", layer)}
    return make_table(spec, modules, layers, prefixes=("mpnet.",), repeated=LM_HEAD_REPEATED, ignored=IGNORED, older=OLDER)
