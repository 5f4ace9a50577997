"""Qwen 3 Next and Qwen 3.5: most layers have a gated delta rule in place of attention, and attention has a gate before its last matrix."""

from __future__ import annotations

from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import HINT, Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, PRE_NORMS, decoder_model, gated_mlp, grouped_attention
from tgen.families.experts import counts, expert_names, gated, shared_names
from tgen.families.state_space import window_names
from tgen.families.table import PLUS_ONE, Interleaved, Names, Reorder, Rows, Source, Table, make_table
from tgen.spec.records import AttentionSpec, ExpertsSpec, FeedForward, LayerSpec, ModelSpec, NormSpec, RouterSpec
from tgen.spec.recurrent import GatedDeltaSpec, WindowSpec

KINDS = ("linear_attention", "full_attention")


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is qwen3_next, qwen3_5_text or qwen3_5_moe_text."""
    head_dim = config.integer("head_dim", default=256)
    norm, count = NormSpec("rms", config.number("rms_norm_eps", default=1e-6)), config.layers("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    for key in ("mamba_ssm_dtype", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"):
        config.raw(key)  # speak of number formats, and of layers that guess further tokens at once
    config.require("attn_output_gate", [True])
    config.require("use_sliding_window", [False])
    rope = config.rope(head_dim, partial=0.25)
    attention = grouped_attention(config, head_dim, bias=bias, qk_norm=norm, gated=True, rope=rope)
    mixers: dict[str, GatedDeltaSpec | AttentionSpec] = {KINDS[0]: _delta(config, norm.eps), KINDS[1]: attention}
    layers = (LayerSpec(mixers[kind], part, norm) for kind, part in zip(_kinds(config, count), _parts(config, count), strict=True))
    return decoder_model(config, layers, norm, context=config.context(default=32768))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    mixers = [mixer for layer in spec.stacks["decoder"].layers for mixer in layer.mixers]
    delta = next((mixer for mixer in mixers if isinstance(mixer, GatedDeltaSpec)), None)
    heads = next((mixer.heads for mixer in mixers if isinstance(mixer, AttentionSpec)), 1)
    layer: Names = {
        **ATTENTION,
        **FEED_FORWARD,
        **expert_names(spec),
        **shared_names("mlp.shared_expert"),
        "feed_forward.router": "mlp.gate",
        "feed_forward.shared_gate": "mlp.shared_expert_gate",
        **{name: Source(str(theirs), PLUS_ONE) for name, theirs in PRE_NORMS.items()},
        **{f"mixer.{part}_norm": Source(f"self_attn.{part}_norm", PLUS_ONE) for part in ("q", "k")},
        "mixer.q": Source("self_attn.q_proj", (Interleaved(0, 2, heads),)),
        "mixer.out_gate": Source("self_attn.q_proj", (Interleaved(1, 2, heads),)),
        **window_names(spec, "linear_attn.conv1d"),
        "mixer.step_bias": "linear_attn.dt_bias",
        "mixer.decay": "linear_attn.A_log",
        "mixer.norm": "linear_attn.norm.weight",
        "mixer.result": "linear_attn.out_proj",
    }
    if delta is not None:
        layer |= _fused(delta) if spec.family == "qwen3_next" else SEPARATE
    modules = {**MODULES, "decoder.final_norm": Source("model.norm", PLUS_ONE)}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS, apart=("mtp.",))


SEPARATE: Names = {
    "mixer.projection": "linear_attn.in_proj_qkv",
    "mixer.gate": "linear_attn.in_proj_z",
    "mixer.a": "linear_attn.in_proj_a",
    "mixer.b": "linear_attn.in_proj_b",
}


def _fused(delta: GatedDeltaSpec) -> Names:
    """Qwen 3 Next fuses, for each key head, its query, key, values and gates; and likewise the numbers b and a."""
    shared = delta.value_heads // delta.key_heads
    first, second = (
        _gathered(delta.key_heads, sizes) for sizes in ((delta.key_dim, delta.key_dim, *(shared * delta.value_dim,) * 2), (shared,) * 2)
    )
    end = 2 * delta.keys + delta.values
    long, short = "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"
    return {
        "mixer.projection": Source(long, (first, Rows(0, end))),
        "mixer.gate": Source(long, (first, Rows(end, end + delta.values))),
        "mixer.b": Source(short, (second, Rows(0, delta.value_heads))),
        "mixer.a": Source(short, (second, Rows(delta.value_heads, 2 * delta.value_heads))),
    }


def _gathered(heads: int, sizes: tuple[int, ...]) -> Reorder:
    """From rows whose parts of these sizes alternate head by head, to all rows of the first part, then all of the second, and so on."""
    starts = [sum(sizes[:part]) for part in range(len(sizes))]
    rows = [
        range(head * sum(sizes) + start, head * sum(sizes) + start + size)
        for start, size in zip(starts, sizes, strict=True)
        for head in range(heads)
    ]
    return Reorder(tuple(row for group in rows for row in group))


def _delta(config: Config, eps: float) -> GatedDeltaSpec:
    """The mixer of most layers."""
    config.require("hidden_act", ["silu"])
    keys, values = config.integer("linear_num_key_heads", default=16), config.integer("linear_num_value_heads", default=32)
    if values % keys:
        raise CheckpointError(f"config.json: {values} value heads cannot share {keys} key heads evenly", HINT)
    window = WindowSpec(config.integer("linear_conv_kernel_dim", default=4, maximum=1024), bias=False)
    key_dim, value_dim = config.integer("linear_key_head_dim", default=128), config.integer("linear_value_head_dim", default=128)
    return GatedDeltaSpec(keys, values, key_dim, value_dim, window, eps)


def _kinds(config: Config, count: int) -> list[str]:
    """The kind of each layer, one of `KINDS`."""
    every, kinds = config.integer("full_attention_interval", default=4), config.raw("layer_types")
    if kinds is None:
        kinds = [KINDS[(layer + 1) % every == 0] for layer in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not set(map(str, kinds)) <= set(KINDS):
        raise UnsupportedError(
            "config.json: these layer_types are not implemented", f"implemented: {' or '.join(KINDS)} for {count} layers"
        )
    return kinds


def _parts(config: Config, count: int) -> list[FeedForward]:
    """The feed-forward part of each layer."""
    kind = config.model_type
    if kind == "qwen3_5_text":
        return [gated_mlp(config)] * count
    experts, chosen = counts(config, "num_experts")
    normalised = kind != "qwen3_next" or config.flag("norm_topk_prob", default=True)
    config.require("norm_topk_prob", [normalised])
    mixture = ExpertsSpec(
        RouterSpec(experts, chosen, normalised=normalised),
        gated(config, config.integer("moe_intermediate_size", default=512)),
        gated(config, config.integer("shared_expert_intermediate_size", default=512)),
        shared_gate=True,
    )
    if kind != "qwen3_next":
        config.raw("intermediate_size")  # no layer has this width
        return [mixture] * count
    step, dense = config.integer("decoder_sparse_step", default=1), config.raw("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise UnsupportedError("config.json: mlp_only_layers is not implemented", "implemented: a list of layers")
    plain = gated_mlp(config)
    return [plain if layer in dense or (layer + 1) % step else mixture for layer in range(count)]
