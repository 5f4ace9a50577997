"""What the encoders have in common: one stack that looks both ways, a head that fills masks, and heads of other tasks left aside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tgen.families.config import Config
from tgen.families.table import Names
from tgen.spec.positions import PositionTable
from tgen.spec.records import Activation, AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec, TransformSpec

# The same files may hold heads for other tasks of the pretraining.
IGNORED = (
    *("position_ids", "pooler.dense.weight", "pooler.dense.bias", "pooler.weight", "pooler.bias"),
    *("seq_relationship.weight", "seq_relationship.bias", "sop_classifier.classifier.weight", "sop_classifier.classifier.bias"),
    *(f"discriminator_predictions.{part}.{kind}" for part in ("dense", "dense_prediction") for kind in ("weight", "bias")),
)
OLDER = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # as TensorFlow names them
LM_HEAD: Names = {
    "head.transform.dense": "lm_head.dense",
    "head.transform.norm": "lm_head.layer_norm",
    "head.out.bias": "lm_head.bias",
    "head.out": "lm_head.decoder",
}
LM_HEAD_REPEATED = {"lm_head.decoder.bias": "lm_head.bias"}


def post_norm_layer(width: int, heads: int, inner: int, activation: Activation, norm: NormSpec, config: Config) -> LayerSpec:
    """BERT's layer: every matrix has a bias, and a norm follows each sum."""
    head_dim = config.head_dim(width, heads)
    attention = AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=True, out_bias=True)
    return LayerSpec(attention, MlpSpec(inner, activation, gated=False, bias=True), norm, residual="post")


def encoder_model(
    config: Config,
    layers: Iterable[LayerSpec],
    norm: NormSpec,
    positions: PositionTable | None,
    *,
    family: str,
    width: int,
    context: int,
    transform: TransformSpec,
    **stack: Any,
) -> ModelSpec:
    """A model of one stack whose embeddings have a norm; `stack` are further fields of its record."""
    return ModelSpec(
        family=family,
        vocab=config.integer("vocab_size"),
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True), bias=True, transform=transform),
        encoder=StackSpec(
            **{"layers": tuple(layers), "causal": False, "final_norm": None, "positions": positions, "embedding_norm": norm, **stack}
        ),
    )
