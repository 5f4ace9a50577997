"""Gemma 4 (text): wider heads in full layers, a vector for each layer and token or a mixture of experts, a learned factor of each layer."""

from __future__ import annotations

from typing import Any

from tgen.families.config import Config
from tgen.families.decoder import BUFFERS
from tgen.families.experts import counts
from tgen.families.gemma3n import VECTOR_MODULES, VECTOR_NAMES, scaled_model, shared_layers, unused_keys, vector_spec
from tgen.families.table import Member, Names, Part, Source, Table, make_table
from tgen.spec.positions import RopeSpec
from tgen.spec.records import AttentionSpec, ExpertsSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, RouterSpec

# Rotations where the folder does not say.
ROPES: dict[str, dict[str, Any]] = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gemma4_text or gemma4_unified_text."""
    unified = config.model_type == "gemma4_unified_text"
    width, count = config.integer("hidden_size"), config.layers("num_hidden_layers")
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6))
    config.require("use_bidirectional_attention", ["vision"])  # among the parts of an image, of which a text has none
    windows = config.windows(count, lambda layer: bool((layer + 1) % 6), config.integer("sliding_window", default=1024 if unified else 512))
    windows[-1] = None  # whatever the folder says
    activation = config.activation("hidden_activation", default="gelu_pytorch_tanh")
    inner, double = config.integer("intermediate_size"), config.flag("use_double_wide_mlp", default=False)
    vector = 0 if unified else config.integer("hidden_size_per_layer_input", default=256, minimum=0)
    if not vector:
        config.raw("vocab_size_per_layer_input")
    experts = _experts(config, norm, width) if not unified and config.flag("enable_moe_block", default=False) else None
    for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
        config.raw(key)  # without experts, they have no effect
    layers = (
        LayerSpec(
            _attention(config, sizes, window, shares, norm),
            MlpSpec(2 * inner if double and shares is not None else inner, activation, gated=True, bias=False),
            norm,
            residual="sandwich",
            experts=experts,
            vector=vector_spec(config, vector) if vector else None,
            scaled=True,
        )
        for sizes, window, shares in zip(_sizes(config, windows), windows, shared_layers(config, windows, default=0), strict=True)
    )
    return scaled_model(config, layers, norm, context=262144 if unified else 131072, bound=None)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **VECTOR_NAMES,
        "scale": "layer_scalar",
        "dense_out_norm": "post_feedforward_layernorm_1",
        "experts_norm": "pre_feedforward_layernorm_2",
        "experts_out_norm": "post_feedforward_layernorm_2",
        "experts.router": "router.proj",
        "experts.router_norm.weight": "router.scale",
        "experts.expert_scales": "router.per_expert_scale",
    }
    experts = spec.stacks["decoder"].layers[0].experts
    count = 0 if experts is None else experts.router.experts
    for number in range(count):
        member, name = Member(number, count), f"experts.experts.{number}"
        layer |= {
            f"{name}.{part}.weight": Source("experts.gate_up_proj", (member, Part(place, 2))) for place, part in enumerate(("gate", "up"))
        }
        layer[f"{name}.down.weight"] = Source("experts.down_proj", (member,))
    layers = {"decoder": ("model.layers", layer)}
    return make_table(spec, VECTOR_MODULES, layers, prefixes=("model.",), ignored=BUFFERS, apart=unused_keys(spec))


def _attention(config: Config, sizes: Config, window: int | None, shares: int | None, norm: NormSpec) -> AttentionSpec:
    """A layer's attention; `sizes` holds what differs from other layers."""
    heads, bias = config.integer("num_attention_heads"), config.flag("attention_bias", default=False)
    head_dim = sizes.integer("head_dim", default=config.integer("head_dim", default=256))
    own, usual = sizes.raw("num_key_value_heads"), config.raw("num_key_value_heads")
    return AttentionSpec(
        heads=heads,
        kv_heads=Config({"num_key_value_heads": usual if own is None else own}).kv_heads(heads),
        head_dim=head_dim,
        scale=1.0,
        bias=bias,
        out_bias=bias,
        qk_norm=norm,
        v_norm=NormSpec("rms", norm.eps, weight=False),
        values_are_keys=config.flag("attention_k_eq_v", default=False) and window is None and shares is None,
        shares=shares,
        window=window,
        rope=_rope(config, head_dim, "full_attention" if window is None else "sliding_attention"),
    )


def _sizes(config: Config, windows: list[int | None]) -> list[Config]:
    """For each layer, the width and the number of its heads where they differ; transformers 5 lists them layer by layer."""
    wide: dict[str, Any] = {"head_dim": 512 if config.raw("global_head_dim") is None else config.integer("global_head_dim")}
    if config.raw("num_global_key_value_heads") is not None and config.flag("attention_k_eq_v", default=False):
        wide["num_key_value_heads"] = config.integer("num_global_key_value_heads")
    if config.raw("per_layer_config") is None:
        return [Config(wide if window is None else {}) for window in windows]
    given = config.part("per_layer_config", config.mapping("per_layer_config"))
    return [given.part(str(layer), given.mapping(str(layer))) for layer in range(len(windows))]


def _rope(config: Config, head_dim: int, kind: str) -> RopeSpec:
    given = config.mapping("rope_parameters")
    return (config if given else Config({"rope_parameters": ROPES})).rope(head_dim, kind=kind)


def _experts(config: Config, norm: NormSpec, width: int) -> ExpertsSpec:
    """The mixture beside each feed-forward part. Its router reads the stream after a norm."""
    experts, chosen = counts(config, "num_experts", "top_k_experts")
    router = RouterSpec(experts, chosen, normalised=True, norm=norm, logit_scale=width**-0.5, expert_scales=True)
    activation = config.activation("hidden_activation", default="gelu_pytorch_tanh")
    return ExpertsSpec(router, MlpSpec(config.integer("moe_intermediate_size"), activation, gated=True, bias=False))
