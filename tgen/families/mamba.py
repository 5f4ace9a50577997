"""Mamba, Mamba 2 and Falcon Mamba: layers of a state space alone, with neither attention nor feed-forward parts."""

from __future__ import annotations

import math

from tgen.families.config import Config
from tgen.families.decoder import decoder_model
from tgen.families.state_space import checked, read_unused, state_space_names, step_limits
from tgen.families.table import Names, Source, Table, make_table
from tgen.spec.records import LayerSpec, ModelSpec, NormSpec
from tgen.spec.recurrent import SelectiveSpec, StateSpaceSpec, WindowSpec

ENDLESS = 2**20  # no position is learned, and a state takes the same memory after any number of ids


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is mamba, mamba2 or falcon_mamba."""
    kind = config.model_type
    eps = config.number("layer_norm_epsilon", default=1e-5)
    config.require("hidden_act", ["silu"])
    config.require("rms_norm", [True])
    read_unused(config)
    for key in ("d_model", "n_layer", "d_inner", "ssm_cfg", "norm_before_gate"):
        config.raw(key)  # repeat other keys, or are not used
    mixer = _heads(config, eps) if kind == "mamba2" else _channels(config)
    norm = NormSpec("rms", eps)
    return decoder_model(
        config,
        (LayerSpec(mixer, None, norm),) * config.layers("num_hidden_layers"),
        norm,
        context=ENDLESS,
        tied=kind != "mamba2",
        wide=config.flag("residual_in_fp32", default=True),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    names: Names = {"mixer_norm": "norm", "mixer.select": "mixer.x_proj", "mixer.step": "mixer.dt_proj"}
    modules: Names = {
        "embedding.weight": Source("backbone.embeddings.weight", other=Source("backbone.embedding.weight")),
        "decoder.final_norm": "backbone.norm_f",
        "head.out": "lm_head",
    }
    layer = {**names, **state_space_names(spec, "mixer")}
    return make_table(spec, modules, {"decoder": ("backbone.layers", layer)}, prefixes=("backbone.",))


def _window(config: Config) -> WindowSpec:
    return WindowSpec(config.integer("conv_kernel", default=4, maximum=1024), config.flag("use_conv_bias", default=True))


def _channels(config: Config) -> SelectiveSpec:
    """The mixer of Mamba and Falcon Mamba."""
    width = config.integer("hidden_size")
    expanded = int(config.number("expand", default=2, maximum=1024) * width)
    inner = config.integer("intermediate_size", default=expanded)  # in Falcon Mamba's folders, `expand` contradicts it and is wrong
    rank = math.ceil(width / 16) if config.raw("time_step_rank") in (None, "auto") else config.integer("time_step_rank")
    return SelectiveSpec(
        inner,
        config.integer("state_size", default=16),
        rank,
        _window(config),
        bias=config.flag("use_bias", default=False),
        norm_eps=config.number("mixer_rms_eps", default=1e-6) if config.model_type == "falcon_mamba" else None,
    )


def _heads(config: Config, eps: float) -> StateSpaceSpec:
    """The mixer of Mamba 2."""
    config.raw("time_step_rank"), config.raw("expand"), config.raw("intermediate_size")  # the heads alone set the inner width
    bias, groups = config.flag("use_bias", default=False), config.integer("n_groups", default=8)
    return checked(
        StateSpaceSpec(
            config.integer("num_heads", default=128),
            config.integer("head_dim", default=64),
            config.integer("state_size", default=128),
            groups,
            _window(config),
            bias=bias,
            out_bias=bias,
            norm_eps=eps,
            norm_groups=groups,
            steps=step_limits(config),
        )
    )
