"""LFM 2, dense or with a mixture of experts: most layers have a short convolution in place of attention."""

from __future__ import annotations

from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import HINT, MAX_INTEGER, Config
from tgen.families.decoder import ATTENTION, BUFFERS, decoder_model
from tgen.families.experts import counts, expert_names, gated
from tgen.families.state_space import window_names
from tgen.families.table import Names, Source, Table, make_table
from tgen.spec.records import AttentionSpec, ExpertsSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, RouterSpec
from tgen.spec.recurrent import ShortConvolutionSpec, WindowSpec

# Keys that repeat others, or are not used.
UNUSED = """
    conv_dim conv_dim_out conv_use_xavier_init block_dim block_norm_eps block_mlp_init_scale block_use_swiglu block_out_init_scale
    block_use_xavier_init num_heads use_pos_enc
""".split()
PARTS = {"gate": "w1", "up": "w3", "down": "w2"}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is lfm2 or lfm2_moe."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.kv_heads(heads)
    norm, count = NormSpec("rms", config.number("norm_eps", default=1e-5)), config.layers("num_hidden_layers")
    for key in UNUSED:
        config.raw(key)
    bias = config.flag("conv_bias", default=False)
    rope = config.rope(head_dim, default_theta=1e6)
    config.require("theta", [rope.theta])  # repeats rope_theta
    mixers: dict[str, AttentionSpec | ShortConvolutionSpec] = {
        "conv": ShortConvolutionSpec(WindowSpec(config.integer("conv_L_cache", default=3, maximum=1024), bias), bias),
        "full_attention": AttentionSpec(heads, kv_heads, head_dim, head_dim**-0.5, qk_norm=norm, rope=rope),
    }
    config.require("hidden_act", ["silu"])
    parts: list[MlpSpec | ExpertsSpec]
    if config.model_type == "lfm2":
        parts = [MlpSpec(_inner(config), "silu", gated=True, bias=False)] * count
    else:
        dense, mixture = gated(config, config.integer("intermediate_size")), _experts(config)
        first = config.integer("num_dense_layers", default=2, minimum=0)
        parts = [dense if layer < first else mixture for layer in range(count)]
    layers = (LayerSpec(mixers[kind], part, norm) for kind, part in zip(_kinds(config, count), parts, strict=True))
    tied = config.flag("tie_embedding", default=True)
    return decoder_model(config, layers, norm, context=config.context(default=128000), tied=tied)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    block = "feed_forward"
    layer: Names = {
        **ATTENTION,
        "mixer.out": "self_attn.out_proj",
        "mixer.q_norm": "self_attn.q_layernorm",
        "mixer.k_norm": "self_attn.k_layernorm",
        "mixer.projection": "conv.in_proj",
        "mixer.result": "conv.out_proj",
        **window_names(spec, "conv.conv"),
        "mixer_norm": "operator_norm",
        "feed_forward_norm": "ffn_norm",
        **{f"{block}.{ours}": f"{block}.{theirs}" for ours, theirs in PARTS.items()},
        **expert_names(spec, block, ("w1", "w3", "w2"), f"{block}.experts.gate_up_proj {block}.experts.down_proj"),
        "feed_forward.router": f"{block}.gate",
        "feed_forward.correction": Source(f"{block}.expert_bias"),
    }
    modules: Names = {"embedding": "model.embed_tokens", "decoder.final_norm": "model.embedding_norm", "head.out": "lm_head"}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _kinds(config: Config, count: int) -> list[str]:
    """The kind of each layer: "conv" or "full_attention"."""
    full, kinds = config.raw("full_attn_idxs"), config.raw("layer_types")
    if kinds is None:
        kinds = ["full_attention" if full is None or (isinstance(full, list) and layer in full) else "conv" for layer in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not set(map(str, kinds)) <= {"conv", "full_attention"}:
        implemented = f"implemented: conv or full_attention for {count} layers"
        raise UnsupportedError("config.json: these layer_types are not implemented", implemented)
    return kinds


def _inner(config: Config) -> int:
    """The inner width: two thirds of the given one, times a factor, rounded up to a multiple."""
    width = config.integer("block_ff_dim", "intermediate_size")
    if not config.flag("block_auto_adjust_ff_dim", default=True):
        config.raw("block_multiple_of"), config.raw("block_ffn_dim_multiplier")
        return width
    width = int(config.number("block_ffn_dim_multiplier", default=1.0, maximum=1e6) * int(2 * width / 3))
    multiple = config.integer("block_multiple_of", default=256)
    inner = -(-width // multiple) * multiple
    if not 0 < inner <= MAX_INTEGER:
        raise CheckpointError("config.json: the feed-forward part has no width", HINT)
    return inner


def _experts(config: Config) -> ExpertsSpec:
    experts, chosen = counts(config, "num_experts")
    router = RouterSpec(
        experts,
        chosen,
        "sigmoid",
        correction=config.flag("use_expert_bias", default=True),
        normalised=config.flag("norm_topk_prob", default=True),
        scale=config.number("routed_scaling_factor", default=1.0, maximum=1e6),
    )
    return ExpertsSpec(router, gated(config, config.integer("moe_intermediate_size")))
