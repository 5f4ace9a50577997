"""T5, T5 v1.1, FLAN-T5, mT5, UMT5, LongT5: encoder and decoder without position vectors; learned numbers per distance are added to scores.

All layers share these numbers, except in UMT5, where each has its own. LongT5's encoder has windows, and if it is transient-global,
sums of blocks.
"""

from __future__ import annotations

from dataclasses import replace

from tgen.errors import UnsupportedError
from tgen.families.config import ACTIVATIONS, Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import RelativeBias
from tgen.spec.records import AggregateSpec, AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec
from tgen.spec.shapes import parameters


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` of T5's kin."""
    kind = config.model_type
    config.require("is_decoder", [False])
    config.raw("scalable_attention")  # no code reads it
    width, heads = config.integer("d_model", "hidden_size"), config.integer("num_heads", "num_attention_heads")
    mlp = _feed_forward(config)
    norm = NormSpec("rms", config.number("layer_norm_epsilon", default=1e-6))
    buckets = config.integer("relative_attention_num_buckets", default=32, minimum=4)
    # Half of the buckets hold one distance each; max_distance must exceed these.
    distance = config.integer("relative_attention_max_distance", default=128, minimum=buckets // 2 + 1)
    count = config.layers("num_layers", "num_hidden_layers")
    decoder_count = config.layers("num_decoder_layers") if config.raw("num_decoder_layers") is not None else count
    # Version 1.0 divides the last hidden state by sqrt(width). A tied head marks it, or a key of its own since transformers 5.
    scaled = config.flag("scale_decoder_outputs", default=config.flag("tie_word_embeddings", default=True)) and kind != "mt5"
    own = kind == "umt5"

    def stack(layers: int, *, causal: bool) -> StackSpec:
        bias = RelativeBias(heads, buckets, distance, bidirectional=not causal)
        # Scores are not scaled: the factor is in the weights.
        plain = AttentionSpec(heads, heads, config.integer("d_kv", "head_dim", default=64), scale=1.0)
        mixer = replace(plain, distances=bias if own else None)
        mixer = _long(config, mixer, norm) if kind == "longt5" and not causal else mixer
        layer = LayerSpec(mixer, mlp, norm, cross=plain if causal else None)
        return StackSpec(
            (layer,) * layers, causal=causal, final_norm=norm, bias=None if own else bias, block_bias=bias if mixer.aggregates else None
        )

    return ModelSpec(
        family="t5",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("n_positions", default=512),
        head=HeadSpec(tied=True, scale=width**-0.5 if scaled else None),
        encoder=stack(count, causal=False),
        decoder=stack(decoder_count, causal=True),
    )


def _feed_forward(config: Config) -> MlpSpec:
    """The feed-forward part, which `feed_forward_proj` names. As in transformers, the keys that repeat its halves override it."""
    form = config.text("feed_forward_proj", default="relu" if config.model_type in ("t5", "longt5") else "gated-gelu")
    gate, _, name = form.rpartition("-")
    known = "gelu_new" if form == "gated-gelu" else name
    if gate not in ("", "gated") or known not in ACTIVATIONS:
        hint = f"implemented: {', '.join(ACTIVATIONS)}, also with gated- before it"
        raise UnsupportedError(f"config.json: feed_forward_proj = {form!r} is not implemented", hint)
    gated = config.flag("is_gated_act", default=gate == "gated")
    return MlpSpec(config.integer("d_ff"), config.activation("dense_act_fn", default=known), gated, bias=False)


def _long(config: Config, mixer: AttentionSpec, norm: NormSpec) -> AttentionSpec:
    """Attention to the keys within `local_radius` on both sides, and to the sums of all blocks if it is transient-global."""
    config.require("encoder_attention_type", ["local", "transient-global"])
    size, radius = config.integer("global_block_size", default=16), config.integer("local_radius", default=127)
    blocks = AggregateSpec(size, norm) if config.raw("encoder_attention_type") == "transient-global" else None
    return replace(mixer, window=radius + 1, aggregates=blocks)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    gated = any(name.endswith("feed_forward.gate.weight") for name in parameters(spec))
    modules: Names = {"embedding": "shared", "head.out": "lm_head"}
    layers = {}
    reader = spec.stacks["encoder"].layers[0].attention
    windowed = "TransientGlobalSelfAttention" if reader.aggregates else "LocalSelfAttention"
    for stack, last in (("encoder", 1), ("decoder", 2)):
        own = windowed if stack == "encoder" and reader.window else "SelfAttention"
        modules[f"{stack}.final_norm"] = f"{stack}.final_layer_norm"
        modules[f"{stack}.bias"] = f"{stack}.block.0.layer.0.{own}.relative_attention_bias"
        modules[f"{stack}.block_bias"] = f"{stack}.block.0.layer.0.{own}.global_relative_attention_bias"
        names: Names = {
            "mixer_norm": "layer.0.layer_norm",
            "mixer.distances": f"layer.0.{own}.relative_attention_bias",
            "mixer.block_norm": f"layer.0.{own}.global_input_layer_norm",
            "cross_norm": "layer.1.layer_norm",
            "feed_forward_norm": f"layer.{last}.layer_norm",
            "feed_forward.gate": f"layer.{last}.DenseReluDense.wi_0",
            "feed_forward.up": f"layer.{last}.DenseReluDense.{'wi_1' if gated else 'wi'}",
            "feed_forward.down": f"layer.{last}.DenseReluDense.wo",
        }
        for ours, theirs in (("mixer", f"layer.0.{own}"), ("cross", "layer.1.EncDecAttention")):
            names |= {f"{ours}.{part}": f"{theirs}.{part[0]}" for part in ("q", "k", "v", "out")}
        layers[stack] = (f"{stack}.block", names)
    repeated = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in layers}
    ignored = ("EncDecAttention.relative_attention_bias.weight",)
    return make_table(spec, modules, layers, repeated=repeated, ignored=ignored)
