"""T5, T5 v1.1 and FLAN-T5: encoder and decoder without position vectors; learned numbers per distance are added to the scores."""

from __future__ import annotations

from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import Activation, AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, RelativeBias, StackSpec
from tgen.spec.shapes import parameters

FEED_FORWARD: dict[str, tuple[Activation, bool]] = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is t5."""
    config.require("is_decoder", [False])
    for key in ("dense_act_fn", "is_gated_act"):  # feed_forward_proj determines both
        config.raw(key)
    width, heads = config.integer("d_model"), config.integer("num_heads")
    kind = config.text("feed_forward_proj", default="relu")
    if kind not in FEED_FORWARD:
        raise UnsupportedError(f"config.json: feed_forward_proj = {kind!r} is not implemented", f"implemented: {', '.join(FEED_FORWARD)}")
    activation, gated = FEED_FORWARD[kind]
    # Scores are not scaled: the factor is in the weights.
    attention = AttentionSpec(heads, heads, config.integer("d_kv", default=64), scale=1.0)
    mlp = MlpSpec(config.integer("d_ff"), activation, gated, bias=False)
    norm = NormSpec("rms", config.number("layer_norm_epsilon", default=1e-6))
    buckets = config.integer("relative_attention_num_buckets", default=32, minimum=4)
    # Half of the buckets hold one distance each; max_distance must exceed these.
    distance = config.integer("relative_attention_max_distance", default=128, minimum=buckets // 2 + 1)
    count = config.layers("num_layers")
    decoder_count = config.layers("num_decoder_layers") if config.raw("num_decoder_layers") is not None else count
    # Version 1.0 divides the last hidden state by sqrt(width). A tied head marks it, or a key of its own since transformers 5.
    scaled = config.flag("scale_decoder_outputs", default=config.flag("tie_word_embeddings", default=True))
    return ModelSpec(
        family="t5",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("n_positions", default=512),
        head=HeadSpec(tied=True, scale=width**-0.5 if scaled else None),
        encoder=StackSpec(
            layers=(LayerSpec(attention, mlp, norm),) * count,
            causal=False,
            final_norm=norm,
            bias=RelativeBias(heads, buckets, distance, bidirectional=True),
        ),
        decoder=StackSpec(
            layers=(LayerSpec(attention, mlp, norm, cross=attention),) * decoder_count,
            causal=True,
            final_norm=norm,
            bias=RelativeBias(heads, buckets, distance, bidirectional=False),
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    gated = any(name.endswith("feed_forward.gate.weight") for name in parameters(spec))
    modules: Names = {"embedding": "shared", "head.out": "lm_head"}
    layers = {}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        modules[f"{stack}.final_norm"] = f"{stack}.final_layer_norm"
        modules[f"{stack}.bias"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        names: Names = {
            "mixer_norm": "layer.0.layer_norm",
            "cross_norm": "layer.1.layer_norm",
            "feed_forward_norm": f"layer.{last}.layer_norm",
            "feed_forward.gate": f"layer.{last}.DenseReluDense.wi_0",
            "feed_forward.up": f"layer.{last}.DenseReluDense.{'wi_1' if gated else 'wi'}",
            "feed_forward.down": f"layer.{last}.DenseReluDense.wo",
        }
        for ours, theirs in (("mixer", "layer.0.SelfAttention"), ("cross", "layer.1.EncDecAttention")):
            names |= {f"{ours}.{part}": f"{theirs}.{part[0]}" for part in ("q", "k", "v", "out")}
        layers[stack] = (f"{stack}.block", names)
    repeated = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in layers}
    ignored = ("EncDecAttention.relative_attention_bias.weight",)
    return make_table(spec, modules, layers, repeated=repeated, ignored=ignored)
