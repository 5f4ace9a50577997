"""BART and its kin: encoder and decoder of layers with biases, over one table of embeddings.

BART, Marian and the small Blenderbot have norms after each sum, the others before each part and after the last layer. Positions are
learned (BART and mBART, which do not use the first two rows, and both Blenderbots) or sines (Marian, PEGASUS, and M2M-100 with NLLB by a
formula of its own). The decoder of the small Blenderbot adds positions after the norm of its embeddings, which it does not scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgen.errors import CheckpointError
from tgen.families.config import HINT, Config
from tgen.families.table import ONE_ROW, Names, Source, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec

UNUSED_ROWS = 2


@dataclass(frozen=True, slots=True)
class Kin:
    """How a model_type differs from BART, and what its context and activation are where the folder does not say."""

    before: bool = True  # whether norms stand before each part
    learned: bool = True  # whether positions are learned
    unused: int = UNUSED_ROWS
    embedding_norm: bool = True
    head_bias: bool = True
    context: int = 1024
    activation: str = "gelu"


KINDS = {
    "bart": Kin(before=False),
    "marian": Kin(before=False, learned=False, unused=0, embedding_norm=False),
    "mbart": Kin(),
    "pegasus": Kin(learned=False, unused=0, embedding_norm=False),
    "blenderbot": Kin(unused=0, embedding_norm=False, context=128),
    "blenderbot-small": Kin(before=False, unused=0, context=512),
    "m2m_100": Kin(learned=False, embedding_norm=False, head_bias=False, activation="relu"),
}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` of BART's kin."""
    kin = KINDS[config.model_type]
    _check_variants(config, kin)
    width, vocab = config.integer("d_model", "hidden_size"), config.integer("vocab_size")
    config.require("decoder_vocab_size", [vocab])
    context, norm = config.integer("max_position_embeddings", default=kin.context), NormSpec("layer", 1e-5)
    activation = config.activation("activation_function", default=kin.activation)
    positions, small = _positions(config, kin, context, width), config.model_type == "blenderbot-small"
    scaled = config.flag("scale_embedding", default=config.model_type == "m2m_100")

    def stack(name: Literal["encoder", "decoder"]) -> StackSpec:
        decoder = name == "decoder"
        heads = config.integer(f"{name}_attention_heads", *([] if decoder else ["num_attention_heads"]))
        head_dim = config.head_dim(width, heads)
        attention = AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=True, out_bias=True)
        mlp = MlpSpec(config.integer(f"{name}_ffn_dim"), activation, gated=False, bias=True)
        residual: Literal["pre", "post"] = "pre" if kin.before else "post"
        layer = LayerSpec(attention, mlp, norm, residual=residual, cross=attention if decoder else None)
        return StackSpec(
            layers=(layer,) * config.layers(f"{name}_layers", *([] if decoder else ["num_hidden_layers"])),
            causal=decoder,
            final_norm=norm if kin.before else None,
            positions=positions,
            embedding_norm=norm if kin.embedding_norm else None,
            positions_last=small and decoder,
            embedding_scale=width**0.5 if scaled and not (small and decoder) else None,
        )

    return ModelSpec(
        family="bart",
        vocab=vocab,
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True), bias=kin.head_bias),
        encoder=stack("encoder"),
        decoder=stack("decoder"),
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
        modules[f"{stack}.final_norm"] = f"model.{stack}.layer_norm"
    layers = {stack: (f"model.{stack}.layers", layer) for stack in ("encoder", "decoder")}
    repeated = {f"model.{stack}.embed_tokens.weight": "model.shared.weight" for stack in layers}
    # The files may hold the sines, which the executor computes.
    positions = spec.stacks["encoder"].positions
    ignored = ("embed_positions.weight", "embed_positions.weights") if positions and positions.kind == "sinusoid" else ()
    return make_table(spec, modules, layers, prefixes=("model.",), repeated=repeated, ignored=ignored, optional=("head.out.bias",))


def _positions(config: Config, kin: Kin, context: int, width: int) -> PositionTable:
    if config.model_type == "m2m_100":
        if width % 2 or width < 4:
            raise CheckpointError(f"config.json: d_model = {width} is not an even number, 4 or more", HINT)
        # The first position has the sines of the place after the padding token's id.
        offset = config.integer("pad_token_id", default=1, minimum=0, maximum=1000) + 1
        return PositionTable("sinusoid", context + offset, offset, to_last=True)
    return PositionTable("learned" if kin.learned else "sinusoid", context + kin.unused, kin.unused)


def _check_variants(config: Config, kin: Kin) -> None:
    """Refuse values under which older programs computed something else than the model_type says."""
    config.require("normalize_before", [kin.before])
    config.require("add_final_layer_norm", [kin.before])
    config.require("normalize_embedding", [kin.embedding_norm])
    config.require("static_position_embeddings", [not kin.learned])
    small = config.model_type == "blenderbot-small"
    config.require("layernorm_variant", ["prelayernorm" if kin.before else "xlm" if small else "bart"])
    config.require("share_encoder_decoder_embeddings", [True])
    for key in ("add_bias_logits", "is_decoder", "extra_layer_norm"):
        config.require(key, [False])
    # Blenderbot's folders say true, which its programs did not read.
    read = {"blenderbot": [False, True], "blenderbot-small": [True]}
    config.require("do_blenderbot_90_layernorm", read.get(config.model_type, [False]))
