"""Falcon-H1: every layer has a state space and attention side by side. Constant factors scale almost every part."""

from __future__ import annotations

from dataclasses import replace

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, decoder_model, gated_mlp
from tgen.families.state_space import hybrid_state_space, read_unused, state_space_names
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import AttentionSpec, LayerSpec, ModelSpec, NormSpec, SideBySideSpec
from tgen.spec.recurrent import StateSpaceSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is falcon_h1."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, bias = config.head_dim(width, heads), config.flag("attention_bias", default=False)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-5))
    config.require("hidden_act", ["silu"])
    config.require("mamba_use_mlp", [True])
    read_unused(config)
    for key in ("mlp_expansion_factor", "num_logits_to_keep", "time_step_rank"):
        config.raw(key)  # repeat other keys, or are not used
    attention = AttentionSpec(
        heads,
        config.kv_heads(heads),
        head_dim,
        head_dim**-0.5 * _factor(config, "key_multiplier"),
        bias=bias,
        out_bias=bias,
        rope=config.rope(head_dim),
    )
    gate, out = _factors(config, "mlp_multipliers", 2)
    layer = LayerSpec(
        SideBySideSpec(
            (_state_space(config, width, norm.eps), attention),
            in_scales=(_factor(config, "ssm_in_multiplier"), _factor(config, "attention_in_multiplier")),
            out_scales=(_factor(config, "ssm_out_multiplier"), _factor(config, "attention_out_multiplier")),
        ),
        replace(gated_mlp(config, bias=config.flag("mlp_bias", default=False)), gate_scale=gate, out_scale=out),
        norm,
    )
    return decoder_model(
        config,
        (layer,) * config.layers("num_hidden_layers"),
        norm,
        context=config.context(default=8192),
        head={"scale": _factor(config, "lm_head_multiplier")},
        embedding_scale=_factor(config, "embedding_multiplier"),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **state_space_names(spec, "mamba", "mixer.mixers.0"),
        **{f"mixer.mixers.1{name.removeprefix('mixer')}": theirs for name, theirs in ATTENTION.items()},
        "mixer_norm": "input_layernorm",
        "feed_forward_norm": "pre_ff_layernorm",
        **{f"feed_forward.{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
    }
    modules: Names = {**MODULES, "decoder.final_norm": "model.final_layernorm"}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _state_space(config: Config, width: int, eps: float) -> StateSpaceSpec:
    normed = config.flag("mamba_rms_norm", default=False)
    gate_last = config.flag("mamba_norm_before_gate", default=True)
    inner = config.raw("mamba_d_ssm") and config.integer("mamba_d_ssm")
    mixer = hybrid_state_space(config, width, eps, inner=inner)
    return replace(
        mixer,
        out_bias=config.flag("projectors_bias", default=False),
        norm_eps=eps if normed else None,
        norm_groups=mixer.norm_groups if normed else 1,
        gate_last=normed and gate_last,
        scales=_factors(config, "ssm_multipliers", 5),
    )


def _factor(config: Config, key: str) -> float:
    """A factor, 1 where the folder does not say."""
    return config.number(key, default=1.0, maximum=1e6)


def _factors(config: Config, key: str, count: int) -> tuple[float, ...]:
    """So many factors, all of them 1 where the folder does not say."""
    return (1.0,) * count if config.raw(key) is None else config.numbers(key, count)
