"""BERT and RoBERTa: an encoder alone, with norms after each sum, learned positions, segment types, and a head that fills masks."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, PositionTable, StackSpec, TransformSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is bert or roberta."""
    config.require("position_embedding_type", ["absolute"])
    config.require("is_decoder", [False])
    config.require("add_cross_attention", [False])
    width, heads, length = config.integer("hidden_size"), config.integer("num_attention_heads"), config.integer("max_position_embeddings")
    head_dim, norm = config.head_dim(width, heads), NormSpec("layer", config.number("layer_norm_eps", default=1e-12))
    activation = config.activation("hidden_act", default="gelu")
    # In RoBERTa's table, position 0 has the row after that of the padding token.
    offset = config.integer("pad_token_id", default=1, minimum=0, maximum=length - 2) + 1 if config.model_type == "roberta" else 0
    layer = LayerSpec(
        mixer=AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=True, out_bias=True),
        feed_forward=MlpSpec(config.integer("intermediate_size"), activation, gated=False, bias=True),
        norm=norm,
        residual="post",
    )
    return ModelSpec(
        family="roberta" if offset else "bert",
        vocab=config.integer("vocab_size"),
        width=width,
        context=length - offset,
        head=HeadSpec(
            tied=config.flag("tie_word_embeddings", default=True),
            bias=True,
            transform=TransformSpec(activation, norm),
        ),
        encoder=StackSpec(
            layers=(layer,) * config.layers("num_hidden_layers"),
            causal=False,
            final_norm=None,
            positions=PositionTable("learned", length, offset),
            types=config.integer("type_vocab_size", default=2),
            embedding_norm=norm,
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    root = spec.family
    layer: Names = {
        "mixer.q": "attention.self.query",
        "mixer.k": "attention.self.key",
        "mixer.v": "attention.self.value",
        "mixer.out": "attention.output.dense",
        "mixer_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    modules: Names = {
        "embedding": f"{root}.embeddings.word_embeddings",
        "encoder.positions": f"{root}.embeddings.position_embeddings",
        "encoder.types": f"{root}.embeddings.token_type_embeddings",
        "encoder.embedding_norm": f"{root}.embeddings.LayerNorm",
    }
    if root == "roberta":
        modules |= {"head.transform.dense": "lm_head.dense", "head.transform.norm": "lm_head.layer_norm"}
        modules |= {"head.out.bias": "lm_head.bias", "head.out": "lm_head.decoder"}
        repeated = {"lm_head.decoder.bias": "lm_head.bias"}
    else:
        modules |= {"head.transform.dense": "cls.predictions.transform.dense", "head.transform.norm": "cls.predictions.transform.LayerNorm"}
        modules |= {"head.out.bias": "cls.predictions.bias", "head.out": "cls.predictions.decoder"}
        repeated = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    # The same files may hold heads for other tasks.
    ignored = ("position_ids", "pooler.dense.weight", "pooler.dense.bias", "seq_relationship.weight", "seq_relationship.bias")
    layers = {"encoder": (f"{root}.encoder.layer", layer)}
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # as TensorFlow names them
    return make_table(spec, modules, layers, prefixes=(f"{root}.",), repeated=repeated, ignored=ignored, older=older)
