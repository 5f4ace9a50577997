"""DeBERTa v2 and v3: BERT's layers, whose attention compares queries and keys with vectors of distances."""

from __future__ import annotations

from dataclasses import replace

from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.families.encoder import IGNORED, OLDER, encoder_model, post_norm_layer
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import ModelSpec, NormSpec, RelativeVectors, TransformSpec

# The generator's and the discriminator's heads of v3's training, in the program's own names.
OTHER_HEADS = tuple(
    f"{head}.{part}"
    for head in ("lm_predictions.lm_head", "mask_predictions")
    for part in ("bias", *(f"{layer}.{kind}" for layer in ("dense", "LayerNorm", "classifier") for kind in ("weight", "bias")))
)


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is deberta-v2."""
    for key, allowed in (("relative_attention", [True]), ("share_att_key", [True]), ("conv_kernel_size", [0]), ("legacy", [True])):
        config.require(key, allowed)
    for key in (
        "conv_act",
        "conv_groups",
        "pooler_dropout",
        "pooler_hidden_act",
        "pooler_hidden_size",
        "mask_token_id",
        "attention_head_size",
    ):
        config.raw(key)  # keys of a convolution and a pooler, which the model does not have
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.require("attention_head_size", [width // heads])
    config.require("embedding_size", [width])
    norm, context = NormSpec("layer", config.number("layer_norm_eps", default=1e-7)), config.integer("max_position_embeddings", default=512)
    activation = config.activation("hidden_act", default="gelu")
    layer = post_norm_layer(width, heads, config.integer("intermediate_size"), activation, norm, config)
    scale = (3 * layer.attention.head_dim) ** -0.5  # a score is the sum of three products
    layer = replace(layer, mixer=replace(layer.attention, scale=scale, disentangled=True))
    types = config.integer("type_vocab_size", default=0, minimum=0)
    return encoder_model(
        config,
        (layer,) * config.layers("num_hidden_layers"),
        norm,
        PositionTable("learned", context) if config.flag("position_biased_input", default=True) else None,
        family="deberta-v2",
        width=width,
        context=context,
        transform=TransformSpec(activation, norm),
        relative=_relative(config, norm, context),
        types=types or None,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer.q": "attention.self.query_proj",
        "mixer.k": "attention.self.key_proj",
        "mixer.v": "attention.self.value_proj",
        "mixer.out": "attention.output.dense",
        "mixer_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    modules: Names = {
        "embedding": "deberta.embeddings.word_embeddings",
        "encoder.positions": "deberta.embeddings.position_embeddings",
        "encoder.types": "deberta.embeddings.token_type_embeddings",
        "encoder.embedding_norm": "deberta.embeddings.LayerNorm",
        "encoder.relative": "deberta.encoder.rel_embeddings",
        "encoder.relative.norm": "deberta.encoder.LayerNorm",
        "head.transform.dense": "cls.predictions.transform.dense",
        "head.transform.norm": "cls.predictions.transform.LayerNorm",
        "head.out.bias": "cls.predictions.bias",
        "head.out": "cls.predictions.decoder",
    }
    repeated = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    layers, ignored = {"encoder": ("deberta.encoder.layer", layer)}, (*IGNORED, *OTHER_HEADS)
    return make_table(spec, modules, layers, prefixes=("deberta.",), repeated=repeated, ignored=ignored, older=OLDER)


def _relative(config: Config, norm: NormSpec, context: int) -> RelativeVectors:
    kinds = config.raw("pos_att_type")
    asked = kinds.split("|") if isinstance(kinds, str) else kinds
    if not isinstance(asked, list) or sorted(map(str, asked)) != ["c2p", "p2c"]:
        raise UnsupportedError(f"config.json: pos_att_type = {str(kinds)[:60]!r} is not implemented", "implemented: p2c|c2p")
    most = config.raw("max_relative_positions")
    most = context if most in (None, -1, 0) else config.integer("max_relative_positions", minimum=2)
    norms = config.text("norm_rel_ebd", default="none")
    config.require("norm_rel_ebd", ["none", "layer_norm"])
    normed = norm if norms == "layer_norm" else None
    if config.raw("position_buckets") in (None, -1, 0):
        return RelativeVectors(most, None, normed)
    buckets = config.integer("position_buckets", minimum=4)
    if most - 1 <= buckets // 2:
        raise UnsupportedError(f"config.json: {buckets} position_buckets for distances up to {most} are not implemented", "use fewer")
    return RelativeVectors(buckets, most, normed)
