"""GPT-Neo and TinyStories: learned positions, scores that are not scaled, full layers and layers with a window in turns."""

from __future__ import annotations

from typing import Any

from tgen.errors import UnsupportedError
from tgen.families.config import MAX_LAYERS, Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt_neo."""
    width, heads = config.integer("hidden_size"), config.integer("num_heads", "num_attention_heads")
    head_dim, context = config.head_dim(width, heads), config.integer("max_position_embeddings", default=2048)
    norm, window = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5)), config.integer("window_size", default=256)
    mlp = MlpSpec(
        width=config.integer("intermediate_size", default=4 * width),
        activation=config.activation("activation_function", default="gelu_new"),
        gated=False,
        bias=True,
    )
    layers = tuple(
        LayerSpec(AttentionSpec(heads, heads, head_dim, scale=1.0, out_bias=True, window=window if kind == "local" else None), mlp, norm)
        for kind in _kinds(config, config.layers("num_layers", "num_hidden_layers"))
    )
    return ModelSpec(
        family="gpt_neo",
        vocab=config.integer("vocab_size"),
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(layers=layers, causal=True, final_norm=norm, positions=PositionTable("learned", context)),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "ln_1",
        "mixer.q": "attn.attention.q_proj",
        "mixer.k": "attn.attention.k_proj",
        "mixer.v": "attn.attention.v_proj",
        "mixer.out": "attn.attention.out_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    modules: Names = {
        "embedding": "transformer.wte",
        "decoder.positions": "transformer.wpe",
        "decoder.final_norm": "transformer.ln_f",
        "head.out": "lm_head",
    }
    ignored = (".attn.attention.bias", ".attn.attention.masked_bias")
    return make_table(spec, modules, {"decoder": ("transformer.h", layer)}, prefixes=("transformer.",), ignored=ignored)


def _kinds(config: Config, count: int) -> list[str]:
    """ "global" or "local" for each layer: `attention_types` lists patterns, each with how often it comes."""
    config.raw("attention_layers")  # the same, written out
    types = config.raw("attention_types")
    patterns: Any = [[["global", "local"], (count + 1) // 2]] if types is None else types
    kinds: list[str] = []
    try:
        for pattern, times in patterns:
            kinds += [str(kind) for kind in pattern] * min(int(times), MAX_LAYERS)
    except (TypeError, ValueError, OverflowError):
        kinds = []
    if types is None:
        kinds = kinds[:count]
    if len(kinds) != count or not set(kinds) <= {"global", "local"}:
        raise UnsupportedError("config.json: these attention_types are not implemented", f"implemented: global or local for {count} layers")
    return kinds
