"""Decoders whose feed-forward parts are mixtures of experts, and which are otherwise like Llama, Qwen or Granite.

They differ in how a router's scores are made and weighted, in which layers are mixtures, in a part that all tokens go through, and in
biases and norms of the attention.
"""

from __future__ import annotations

from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, PRE_NORMS, decoder_model, gated_mlp
from tgen.families.experts import counts, dense_first, expert_names, gated, grouped_router, shared_names
from tgen.families.table import ONE_ROW, Names, Part, Source, Table, make_table, paired
from tgen.spec.records import AttentionSpec, ExpertsSpec, LayerSpec, ModelSpec, NormSpec, RouterSpec

GRANITE = ("granitemoe", "granitemoeshared")
CORRECTED = ("glm4_moe", "dots1")  # scores are sigmoids, corrected for the choice, in groups
# The keys for how many experts there are and take part, where they differ from those of most families.
COUNTS = {"ernie4_5_moe": ("moe_num_experts", "moe_k")} | dict.fromkeys(CORRECTED, ("n_routed_experts",))
COUNTS |= dict.fromkeys(("qwen2_moe", "qwen3_moe", "olmoe"), ("num_experts",))
THETA = {"mixtral": 1e6, "phimoe": 1e6, "ernie4_5_moe": 5e5}
CONTEXT = {"mixtral": 131072, "phimoe": 131072, "ernie4_5_moe": 131072, "glm4_moe": 131072, "olmoe": 4096, "dots1": 2048} | dict.fromkeys(
    GRANITE, 2048
)


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` of these families."""
    kind = config.model_type
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads, granite = config.head_dim(width, heads), config.kv_heads(heads), kind in GRANITE
    # Granite multiplies what it adds to the residual stream by a factor. Here the stream is divided by that factor instead (see llama.py).
    residual = config.number("residual_multiplier", default=1.0, maximum=1e6) if granite else 1.0
    eps = config.number("rms_norm_eps", default=1e-6 if kind in ("qwen2_moe", "qwen3_moe", "dots1", *GRANITE) else 1e-5)
    norm = NormSpec("layer" if kind == "phimoe" else "rms", eps / residual / residual)
    bias, out_bias = _biases(config)
    count = config.layers("num_hidden_layers")
    rope = config.rope(head_dim, default_theta=THETA.get(kind, 10000.0), partial=0.5 if kind == "glm4_moe" else None)
    if kind == "phimoe":
        config.raw("original_max_position_embeddings")  # used only by a rope scaling
    if kind == "qwen3_moe":  # keys of Qwen's own code, which have the same values in all folders
        for key, value in {"qkv_bias": False, "shared_expert_intermediate_size": 0, "use_qk_norm": True}.items():
            config.require(key, [value])
    normed = kind in ("qwen3_moe", "olmoe", "dots1") or (kind == "glm4_moe" and config.flag("use_qk_norm", default=False))
    experts, mixed = _experts(config), _mixed(config, count)
    dense = gated_mlp(config)
    scale = config.number("attention_multiplier", default=1.0) if granite else head_dim**-0.5
    layers = (
        LayerSpec(
            AttentionSpec(
                heads,
                kv_heads,
                head_dim,
                scale,
                bias=bias,
                out_bias=out_bias,
                qk_norm=norm if normed else None,
                qk_norm_span="width" if kind == "olmoe" else "head",
                window=window,
                rope=rope,
            ),
            experts if mixture else dense,
            norm,
        )
        for mixture, window in zip(mixed, _windows(config, count), strict=True)
    )
    head = {"bias": kind == "phimoe" and config.flag("lm_head_bias", default=False)}
    return decoder_model(
        config,
        layers,
        norm,
        context=config.context(default=CONTEXT.get(kind, 32768)),
        tied=kind == "ernie4_5_moe",
        head=head | ({"scale": 1 / config.number("logits_scaling", default=1.0)} if granite else {}),
        embedding_scale=config.number("embedding_multiplier", default=1.0) / residual if granite else None,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    kind = spec.family
    layer: Names = {**ATTENTION, **PRE_NORMS, **FEED_FORWARD, "feed_forward.router": "mlp.gate"}
    if kind in ("mixtral", "phimoe"):
        layer |= expert_names(spec, "block_sparse_moe", ("w1", "w3", "w2"))
        newer = Source("mlp.gate.weight" if kind == "mixtral" else "mlp.router.weight")
        layer["feed_forward.router.weight"] = Source("block_sparse_moe.gate.weight", other=newer)
    elif kind in GRANITE:
        layer |= granite_names(spec)
    else:
        layer |= expert_names(spec)
    match kind:
        case "qwen2_moe":
            layer |= {**shared_names("mlp.shared_expert"), "feed_forward.shared_gate": "mlp.shared_expert_gate"}
        case "ernie4_5_moe":
            head_dim = spec.stacks["decoder"].layers[0].attention.head_dim
            layer |= {f"mixer.{part}": Source(f"self_attn.{part}_proj", paired(head_dim, head_dim)) for part in ("q", "k")}
            ending = "moe_statics.e_score_correction_bias"
            layer |= shared_names("mlp.shared_experts")
            layer["feed_forward.correction"] = Source(f"mlp.{ending}", ONE_ROW, other=Source(f"mlp.gate.{ending}", ONE_ROW))
        case "glm4_moe" | "dots1":
            layer |= {**shared_names("mlp.shared_experts"), "feed_forward.correction": "mlp.gate.e_score_correction_bias"}
    count = len(spec.stacks["decoder"].layers)
    # Layers beyond the last serve multi-token prediction, which tgen does not do.
    apart = ("model.mtp_",) if kind == "ernie4_5_moe" else (f"model.layers.{count}.",) if kind == "glm4_moe" else ()
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS, apart=apart)


def granite_names(spec: ModelSpec) -> Names:
    """Granite stacks all experts of a layer, and fuses gate and up."""
    names: Names = {}
    block = "block_sparse_moe"
    for name, source in expert_names(spec, block).items():
        assert isinstance(source, Source) and source.other is not None
        down = source.name.endswith("down_proj.weight")
        older, newer = ("output_linear.weight", "down_proj") if down else ("input_linear.weight", "gate_up_proj")
        take, last = source.other.take, source.other.other
        names[name] = Source(f"{block}.{older}", take, Source(f"{block}.experts.{newer}", take, last))
    names["feed_forward.router.weight"] = Source(f"{block}.router.layer.weight", other=Source(f"{block}.router.weight"))
    fused = "shared_mlp.input_linear"
    names |= {f"feed_forward.shared.{part}": Source(fused, (Part(place, 2),)) for place, part in enumerate(("gate", "up"))}
    names["feed_forward.shared.down"] = "shared_mlp.output_linear"
    return names


def _experts(config: Config) -> ExpertsSpec:
    """The mixture: inner widths, the router, and the part that all tokens go through."""
    kind = config.model_type
    experts, chosen = counts(config, *COUNTS.get(kind, ("num_local_experts",)))
    own = config.integer("moe_intermediate_size") if kind in ("qwen2_moe", "qwen3_moe", "ernie4_5_moe", *CORRECTED) else 0
    expert = gated(config, own) if own else gated_mlp(config)
    match kind:
        case "mixtral":
            config.raw("router_jitter_noise")  # noise in training alone
            return ExpertsSpec(RouterSpec(experts, chosen, normalised=True), expert)
        case "granitemoe":
            return ExpertsSpec(RouterSpec(experts, chosen, normalised=True), expert)
        case "granitemoeshared":
            shared = config.integer("shared_intermediate_size", default=0, minimum=0)
            return ExpertsSpec(RouterSpec(experts, chosen, normalised=True), expert, gated(config, shared) if shared else None)
        case "phimoe":
            if chosen != 2:
                raise UnsupportedError(f"config.json: num_experts_per_tok = {chosen} is not implemented", "implemented: 2")
            return ExpertsSpec(
                RouterSpec(experts, 2, "sparsemixer", jitter=config.number("router_jitter_noise", default=0.01, maximum=1e6)), expert
            )
        case "ernie4_5_moe":
            config.require("moe_norm_min", [1e-12])
            config.require("moe_gate", ["topk", "topk_fused"])
            config.require("moe_use_aux_free", [True])
            config.raw("num_nextn_predict_layers")  # layers that guess further tokens at once
            shared = own * config.integer("moe_num_shared_experts", default=2, minimum=0)
            return ExpertsSpec(
                RouterSpec(experts, chosen, correction=True, normalised=True), expert, gated(config, shared) if shared else None
            )
        case "glm4_moe" | "dots1":
            config.require("scoring_func", ["sigmoid"])
            config.require("topk_method", ["noaux_tc"])
            for key in ("num_nextn_predict_layers", "num_mtp_layers"):
                config.raw(key)
            normalised = config.flag("norm_topk_prob", default=kind == "glm4_moe")
            scale = config.number("routed_scaling_factor", default=1.0, maximum=1e6)
            router = RouterSpec(experts, chosen, "sigmoid", correction=True, normalised=normalised, scale=scale)
            return ExpertsSpec(
                grouped_router(config, router, best=2), expert, gated(config, own * config.integer("n_shared_experts", default=1))
            )
    router = RouterSpec(experts, chosen, normalised=config.flag("norm_topk_prob", default=False))
    if kind == "qwen2_moe":
        return ExpertsSpec(router, expert, gated(config, config.integer("shared_expert_intermediate_size")), shared_gate=True)
    return ExpertsSpec(router, expert)


def _mixed(config: Config, count: int) -> list[bool]:
    """For each layer, whether it is a mixture."""
    match config.model_type:
        case "qwen2_moe" | "qwen3_moe":
            step, dense = config.integer("decoder_sparse_step", default=1), config.raw("mlp_only_layers") or []
            if not isinstance(dense, list):
                raise UnsupportedError("config.json: mlp_only_layers is not implemented", "implemented: a list of layers")
            return [layer not in dense and (layer + 1) % step == 0 for layer in range(count)]
        case "ernie4_5_moe":
            first, every = config.integer("moe_layer_start_index", default=1, minimum=0), config.integer("moe_layer_interval", default=1)
            last = config.integer("moe_layer_end_index", default=-1, minimum=-1)
            last = count - 1 if last == -1 else last
            return [first <= layer <= last and (layer + 1) % every == 0 for layer in range(count)]
        case "glm4_moe" | "dots1":
            return dense_first(config, count, default=int(config.model_type == "glm4_moe"))
    return [True] * count


def _biases(config: Config) -> tuple[bool, bool]:
    """Whether query, key and value have biases, and whether the output matrix has."""
    match config.model_type:
        case "mixtral":
            config.require("attention_bias", [False])
            return False, False
        case "qwen2_moe":
            return config.flag("qkv_bias", default=True), False
        case "ernie4_5_moe":
            config.require("use_bias", [False])
            return False, False
        case "glm4_moe":
            return config.flag("attention_bias", default=False), False
        case "olmoe":
            config.require("clip_qkv", [])
    bias = config.flag("attention_bias", default=False)
    return bias, bias


def _windows(config: Config, count: int) -> list[int | None]:
    """For each layer, how many of the latest keys a query sees; None is all of them."""
    match config.model_type:
        case "mixtral" | "phimoe":
            return config.windows(count)
        case "qwen3_moe":
            config.raw("max_window_layers")
            if config.flag("use_sliding_window", default=False):
                return config.windows(count)
        case "qwen2_moe":
            config.require("use_sliding_window", [False])
            config.raw("max_window_layers")  # has no effect without use_sliding_window
        case "dots1":
            first = config.integer("max_window_layers", default=62, minimum=0)
            return config.windows(count, lambda layer: layer >= first)
    config.require("layer_types", [["full_attention"] * count])
    if config.model_type in ("qwen2_moe", "qwen3_moe"):
        config.raw("sliding_window")  # without use_sliding_window it has no effect
    return [None] * count
