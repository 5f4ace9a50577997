"""Nemotron-H and Nemotron 3: each layer is a state space, attention without positions, a feed-forward part or a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from tgen.errors import UnsupportedError
from tgen.families.config import MAX_LAYERS, Config
from tgen.families.decoder import decoder_model
from tgen.families.experts import counts, first_experts, grouped_router
from tgen.families.state_space import UNBOUNDED, checked, read_unused, state_space_names, step_limits
from tgen.families.table import Member, Names, Source, Table, make_table
from tgen.spec.records import AttentionSpec, ExpertsSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, RouterSpec
from tgen.spec.recurrent import StateSpaceSpec, WindowSpec

STATE, ATTENTION, DENSE, MIXTURE = "linear_attention", "full_attention", "mlp", "moe"
LETTERS = {"M": STATE, "*": ATTENTION, "-": DENSE, "E": MIXTURE}
OLDER = {"mamba": STATE, "attention": ATTENTION}
# Keys that repeat others, or only say how a model is trained, which kernel runs, or how several tokens are predicted at once.
UNUSED = """
    expand mamba_proj_bias mamba_ssm_cache_dtype moe_shared_expert_overlap n_shared_experts norm_eps num_hidden_layers num_local_experts
    num_logits_to_keep num_nextn_predict_layers mtp_layers_block_type mtp_hybrid_override_pattern partial_rotary_factor rms_norm_eps
    rope_theta time_step_rank
""".split()
FEED_FORWARD = """
    intermediate_size mlp_bias mlp_hidden_act moe_intermediate_size moe_latent_size moe_shared_expert_intermediate_size n_group
    n_routed_experts norm_topk_prob num_experts_per_tok routed_scaling_factor topk_group
""".split()


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is nemotron_h."""
    norm = NormSpec("rms", config.number("layer_norm_epsilon", default=1e-5))
    read_unused(config)
    for key in UNUSED:
        config.raw(key)
    config.require("sliding_window", [])
    config.require("mamba_hidden_act", ["silu"])
    config.require("attention_bias", [False])
    heads, head_dim = config.integer("num_attention_heads", default=32), config.integer("head_dim", "attention_head_dim", default=128)
    layers = {
        STATE: LayerSpec(_state_space(config, norm.eps), None, norm),
        ATTENTION: LayerSpec(AttentionSpec(heads, config.kv_heads(heads), head_dim, head_dim**-0.5), None, norm),
    }
    kinds = _kinds(config)
    for key in FEED_FORWARD:
        config.raw(key)  # has no effect in a model without such layers
    if DENSE in kinds:
        layers[DENSE] = LayerSpec(None, _part(config, "intermediate_size"), norm)
    if MIXTURE in kinds:
        layers[MIXTURE] = LayerSpec(None, _experts(config), norm)
    return decoder_model(
        config,
        (layers[kind] for kind in kinds),
        norm,
        context=config.context(default=4096),
        wide=config.flag("residual_in_fp32", default=False),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "norm",
        "feed_forward_norm": "norm",
        **state_space_names(spec, "mixer"),
        **{f"mixer.{part}": f"mixer.{part}_proj" for part in ("q", "k", "v")},
        "mixer.out": "mixer.o_proj",
        "feed_forward.router": "mixer.gate",
        "feed_forward.correction": "mixer.gate.e_score_correction_bias",
        "feed_forward.inner_in": "mixer.fc1_latent_proj",
        "feed_forward.inner_out": "mixer.fc2_latent_proj",
    }
    experts = first_experts(spec)
    for part in ("up", "down"):
        layer |= {f"feed_forward.{part}": f"mixer.{part}_proj", f"feed_forward.shared.{part}": f"mixer.shared_experts.{part}_proj"}
        count = 0 if experts is None else experts.router.experts
        for number in range(count):
            stacked = Source(f"mixer.experts.{part}_proj", (Member(number, count),))
            layer[f"feed_forward.experts.{number}.{part}.weight"] = Source(f"mixer.experts.{number}.{part}_proj.weight", other=stacked)
    modules: Names = {"embedding": "backbone.embeddings", "decoder.final_norm": "backbone.norm_f", "head.out": "lm_head"}
    # Layers of their own serve multi-token prediction, which tgen does not do.
    layers = {"decoder": ("backbone.layers", layer)}
    return make_table(spec, modules, layers, prefixes=("backbone.",), renamed=(("backbone.", "model."),), apart=("mtp.",))


def _kinds(config: Config) -> list[str]:
    """The kind of each layer, from a list of names or from a string of letters."""
    kinds, others, letters = (config.raw(key) for key in ("layers_block_type", "layer_types", "hybrid_override_pattern"))
    kinds = kinds or others
    if kinds is None and isinstance(letters, str):
        kinds = [LETTERS.get(letter, letter) for letter in letters]
    known = isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)
    named = [OLDER.get(kind, kind) for kind in kinds] if known else []
    if not 0 < len(named) <= MAX_LAYERS or not set(named) <= set(LETTERS.values()):
        raise UnsupportedError(
            "config.json: these layers_block_type are not implemented", f"implemented: {', '.join(LETTERS.values())} for each layer"
        )
    return named


def _part(config: Config, key: str) -> MlpSpec:
    """A feed-forward part without a gate, whose inner width stands under a key."""
    activation, bias = config.activation("mlp_hidden_act", default="relu2"), config.flag("mlp_bias", default=False)
    return MlpSpec(config.integer(key), activation, gated=False, bias=bias)


def _state_space(config: Config, eps: float) -> StateSpaceSpec:
    """The mixer of layers with a state space. As in transformers, `time_step_min` alone bounds the steps, from below."""
    if step_limits(config) != (0.0, UNBOUNDED):
        raise UnsupportedError("config.json: this time_step_limit is not implemented", "implemented: from 0 to infinity")
    groups, bias = config.integer("n_groups", "mamba_n_groups", default=8), config.flag("use_bias", default=False)
    return checked(
        StateSpaceSpec(
            config.integer("mamba_num_heads", default=128),
            config.integer("mamba_head_dim", default=64),
            config.integer("ssm_state_size", default=128),
            groups,
            WindowSpec(config.integer("conv_kernel", default=4, maximum=1024), config.flag("use_conv_bias", default=True)),
            bias=bias,
            out_bias=bias,
            norm_eps=eps,
            norm_groups=groups,
            steps=(config.number("time_step_min", default=0.001, maximum=1e6), UNBOUNDED),
        )
    )


def _experts(config: Config) -> ExpertsSpec:
    """A mixture whose router corrects sigmoids for the choice, as DeepSeek's does."""
    experts, chosen = counts(config, "n_routed_experts")
    router = RouterSpec(
        experts,
        chosen,
        "sigmoid",
        correction=True,
        normalised=config.flag("norm_topk_prob", default=True),
        scale=config.number("routed_scaling_factor", default=1.0, maximum=1e6),
    )
    return ExpertsSpec(
        grouped_router(config, router, best=2),
        replace(_part(config, "moe_intermediate_size"), bias=False),
        _part(config, "moe_shared_expert_intermediate_size"),
        inner=None if config.raw("moe_latent_size") is None else config.integer("moe_latent_size"),
    )
