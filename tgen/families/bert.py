"""BERT, RoBERTa with its kin, and ELECTRA: norms after each sum, learned positions, segment types, and a head that fills masks.

XLM-RoBERTa-XL has its norms before each part. ELECTRA's embeddings may be narrower than the model.
"""

from __future__ import annotations

from dataclasses import replace

from tgen.families.config import Config
from tgen.families.encoder import IGNORED, LM_HEAD, LM_HEAD_REPEATED, OLDER, encoder_model, post_norm_layer
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import ModelSpec, NormSpec, TransformSpec

ROOTS = {"bert": "bert", "electra": "electra"}  # all others have "roberta"


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` of BERT's kin."""
    kind = config.model_type
    config.require("position_embedding_type", ["absolute"])
    config.require("is_decoder", [False])
    config.require("add_cross_attention", [False])
    width, heads, length = config.integer("hidden_size"), config.integer("num_attention_heads"), config.integer("max_position_embeddings")
    before = kind == "xlm-roberta-xl"
    norm = NormSpec("layer", config.number("layer_norm_eps", default=1e-5 if before else 1e-12))
    activation = config.activation("hidden_act", default="gelu")
    # In RoBERTa's table, position 0 has the row after that of the padding token.
    offset = config.integer("pad_token_id", default=1, minimum=0, maximum=length - 2) + 1 if kind not in ROOTS else 0
    row = config.integer("embedding_size", default=128) if kind == "electra" else width
    layer = post_norm_layer(width, heads, config.integer("intermediate_size"), activation, norm, config)
    return encoder_model(
        config,
        (replace(layer, residual="pre") if before else layer,) * config.layers("num_hidden_layers"),
        norm,
        PositionTable("learned", length, offset),
        family=ROOTS.get(kind, "roberta"),
        width=width,
        context=length - offset,
        transform=TransformSpec(activation if kind == "bert" else "gelu", norm),
        types=config.integer("type_vocab_size", default=2),
        embedding_in=None if row == width else row,
        **({"embedding_norm": None, "final_norm": norm} if before else {}),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    root, before = spec.family, spec.stacks["encoder"].layers[0].residual == "pre"
    layer: Names = {
        "mixer.q": "attention.self.query",
        "mixer.k": "attention.self.key",
        "mixer.v": "attention.self.value",
        "mixer.out": "attention.output.dense",
        "mixer_norm": "attention.self_attn_layer_norm" if before else "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "LayerNorm" if before else "output.LayerNorm",
    }
    modules: Names = {
        "embedding": f"{root}.embeddings.word_embeddings",
        "encoder.positions": f"{root}.embeddings.position_embeddings",
        "encoder.types": f"{root}.embeddings.token_type_embeddings",
        "encoder.embedding_norm": f"{root}.embeddings.LayerNorm",
        "encoder.embedding_in": f"{root}.embeddings_project",
        "encoder.final_norm": f"{root}.encoder.LayerNorm",
    }
    repeated: dict[str, str] = {}
    if root == "roberta":
        modules |= LM_HEAD
        repeated = LM_HEAD_REPEATED
    elif root == "electra":
        modules |= {"head.transform.dense": "generator_predictions.dense", "head.transform.norm": "generator_predictions.LayerNorm"}
        modules |= {"head.out.bias": "generator_lm_head.bias", "head.out": "generator_lm_head"}
    else:
        modules |= {"head.transform.dense": "cls.predictions.transform.dense", "head.transform.norm": "cls.predictions.transform.LayerNorm"}
        modules |= {"head.out.bias": "cls.predictions.bias", "head.out": "cls.predictions.decoder"}
        repeated = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    layers = {"encoder": (f"{root}.encoder.layer", layer)}
    return make_table(spec, modules, layers, prefixes=(f"{root}.",), repeated=repeated, ignored=IGNORED, older=OLDER)
