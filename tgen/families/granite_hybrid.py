"""Granite 4: most layers have a state space in place of attention; the feed-forward parts may be mixtures of experts."""

from __future__ import annotations

from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, PRE_NORMS, decoder_model, gated_mlp
from tgen.families.experts import counts, gated
from tgen.families.mixture import granite_names
from tgen.families.state_space import hybrid_state_space, read_unused, state_space_names
from tgen.families.table import Names, Part, Source, Table, make_table
from tgen.spec.records import AttentionSpec, ExpertsSpec, FeedForward, LayerSpec, ModelSpec, NormSpec, RouterSpec

KINDS = {"mamba": True, "linear_attention": True, "attention": False, "full_attention": False}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is granitemoehybrid."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, bias = config.head_dim(width, heads), config.flag("attention_bias", default=False)
    # Granite multiplies what it adds to the residual stream by a factor. Here the stream is divided by that factor instead (see llama.py).
    residual = config.number("residual_multiplier", default=1.0, maximum=1e6)
    eps = config.number("rms_norm_eps", default=1e-6)
    norm, count = NormSpec("rms", eps / residual / residual), config.layers("num_hidden_layers")
    config.require("position_embedding_type", ["rope", "nope"])
    config.require("normalization_function", ["rmsnorm"])
    read_unused(config)
    config.raw("init_method")
    rope = config.rope(head_dim)
    attention = AttentionSpec(
        heads,
        config.kv_heads(heads),
        head_dim,
        config.number("attention_multiplier", default=1.0),
        bias=bias,
        out_bias=bias,
        rope=rope if config.raw("position_embedding_type") == "rope" else None,
    )
    state, part = hybrid_state_space(config, width, eps), _part(config)
    layers = (LayerSpec(state if recurrent else attention, part, norm) for recurrent in _kinds(config, count))
    return decoder_model(
        config,
        layers,
        norm,
        context=config.context(default=2048),
        head={"scale": 1 / config.number("logits_scaling", default=1.0)},
        embedding_scale=config.number("embedding_multiplier", default=1.0) / residual,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    fused = "shared_mlp.input_linear"
    dense: Names = {f"feed_forward.{part}": Source(fused, (Part(place, 2),)) for place, part in enumerate(("gate", "up"))}
    layer: Names = {
        **ATTENTION,
        **PRE_NORMS,
        **granite_names(spec),
        **state_space_names(spec, "mamba"),
        **dense,
        "feed_forward.down": "shared_mlp.output_linear",
    }
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _part(config: Config) -> FeedForward:
    """The feed-forward part of every layer: one for all tokens, and experts beside it if there are any."""
    shared = gated(config, config.integer("shared_intermediate_size", default=1024))
    if config.raw("num_local_experts") == 0:
        config.raw("num_experts_per_tok"), config.raw("intermediate_size")
        return shared
    experts, chosen = counts(config, "num_local_experts")
    return ExpertsSpec(RouterSpec(experts, chosen, normalised=True), gated_mlp(config), shared)


def _kinds(config: Config, count: int) -> list[bool]:
    """For each layer, whether it has a state space."""
    kinds, others = (config.raw(key) for key in ("layer_types", "layers_block_type"))
    kinds = kinds or others or ["linear_attention"] * count
    if not isinstance(kinds, list) or len(kinds) != count or not set(map(str, kinds)) <= KINDS.keys():
        raise UnsupportedError("config.json: these layer_types are not implemented", f"implemented: {', '.join(KINDS)} for {count} layers")
    return [KINDS[kind] for kind in kinds]
