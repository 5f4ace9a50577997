"""StableLM (3B, Zephyr, 2): layer norms, a gated feed-forward part, a quarter of each head rotated."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, PRE_NORMS, decoder_model, gated_mlp
from tgen.families.table import Table, make_table
from tgen.spec.records import AttentionSpec, LayerSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is stablelm."""
    config.require("qk_layernorm", [False])
    config.require("rotary_scaling_factor", [1.0])
    for key in ("norm_eps", "rope_pct", "num_heads"):
        config.raw(key)  # other names of keys that are read
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.kv_heads(heads)
    norm, bias = NormSpec("layer", config.number("layer_norm_eps", default=1e-5)), config.flag("use_qkv_bias", default=False)
    parallel = config.flag("use_parallel_residual", default=False)
    rope = config.rope(head_dim, partial=0.25)
    layer = LayerSpec(
        AttentionSpec(heads, kv_heads, head_dim, head_dim**-0.5, bias=bias, rope=rope),
        gated_mlp(config),
        norm,
        residual="parallel" if parallel else "pre",
        shared_norm=parallel,
    )
    return decoder_model(config, (layer,) * config.layers("num_hidden_layers"), norm, context=config.context(default=4096))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer = {**ATTENTION, **FEED_FORWARD, **PRE_NORMS}
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
