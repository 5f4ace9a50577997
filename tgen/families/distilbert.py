"""DistilBERT: BERT without segment types, under other names."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.encoder import IGNORED, OLDER, encoder_model, post_norm_layer
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import ModelSpec, NormSpec, TransformSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is distilbert."""
    for key in ("sinusoidal_pos_embds", "tie_weights_", "qa_dropout", "seq_classif_dropout"):
        config.raw(key)  # the files hold all position vectors, even sines; the other keys change nothing that is computed
    width, norm = config.integer("dim", "hidden_size"), NormSpec("layer", 1e-12)
    context, activation = config.integer("max_position_embeddings", default=512), config.activation("activation", default="gelu")
    layer = post_norm_layer(width, config.integer("n_heads", "num_attention_heads"), config.integer("hidden_dim"), activation, norm, config)
    return encoder_model(
        config,
        (layer,) * config.layers("n_layers", "num_hidden_layers"),
        norm,
        PositionTable("learned", context),
        family="distilbert",
        width=width,
        context=context,
        transform=TransformSpec(activation, norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **{f"mixer.{part}": f"attention.{part}_lin" for part in ("q", "k", "v", "out")},
        "mixer_norm": "sa_layer_norm",
        "feed_forward.up": "ffn.lin1",
        "feed_forward.down": "ffn.lin2",
        "feed_forward_norm": "output_layer_norm",
    }
    modules: Names = {
        "embedding": "distilbert.embeddings.word_embeddings",
        "encoder.positions": "distilbert.embeddings.position_embeddings",
        "encoder.embedding_norm": "distilbert.embeddings.LayerNorm",
        "head.transform.dense": "vocab_transform",
        "head.transform.norm": "vocab_layer_norm",
        "head.out": "vocab_projector",
    }
    layers = {"encoder": ("distilbert.transformer.layer", layer)}
    return make_table(spec, modules, layers, prefixes=("distilbert.",), ignored=IGNORED, older=OLDER)
