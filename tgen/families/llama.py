"""Llama and the many families that differ from it in single settings: norms before each part, rotary positions, a gated feed-forward part.

They differ in biases, in a norm on queries and keys, in which layers have a sliding window or rotations, and in constant factors.
"""

from __future__ import annotations

from tgen.errors import UnsupportedError
from tgen.families.config import MAX_INTEGER, Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, PRE_NORMS, decoder_model
from tgen.families.scaling import original_context
from tgen.families.table import Names, Source, Table, make_table, paired
from tgen.spec.positions import QueryGrowth, RopeSpec
from tgen.spec.records import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec

QWEN2 = ("qwen2", "qwen2_vl_text", "qwen2_5_vl_text")
QWEN3 = ("qwen3", "qwen3_vl_text")
MISTRAL = ("mistral", "ministral3")
THETA = {"exaone": 5e5, "smollm3": 2e6, "ernie4_5": 5e5, "qwen2_vl_text": 1e6, "qwen2_5_vl_text": 1e6, "qwen3_vl_text": 5e5}
SMALL_EPS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "seed_oss", "qwen3_vl_text")


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` of Llama's kin."""
    kind = config.model_type
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.kv_heads(heads)
    # Granite adds m times each part to the residual stream. Dividing the stream by m instead gives the same results if a norm's
    # epsilon is divided by m^2.
    residual = config.number("residual_multiplier", default=1.0, maximum=1e6) if kind == "granite" else 1.0
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6 if kind in SMALL_EPS else 1e-5) / residual / residual)
    config.require("rope_interleaved", [False])
    config.require("use_mrope", [False])
    config.require("activation", ["swiglu"])  # Falcon 3's name for a gated SiLU
    if kind == "hunyuan_v1_dense":
        hunyuan_keys(config)
        config.require("num_experts", [1])
    bias, out_bias, mlp_bias = _biases(config)
    mlp = MlpSpec(
        width=config.integer("intermediate_size"),
        activation=config.activation("hidden_act", default="relu2" if kind == "arcee" else "silu"),
        gated=kind != "arcee",
        bias=mlp_bias,
    )
    count = config.layers("num_hidden_layers")
    rope = config.rope(head_dim, default_theta=THETA.get(kind, 10000.0))
    ropes = _ropes(config, rope, count)
    scale = config.number("attention_multiplier", default=1.0) if kind == "granite" else head_dim**-0.5
    layers = (
        LayerSpec(
            mixer=AttentionSpec(
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                scale=scale,
                bias=bias,
                out_bias=out_bias,
                qk_norm=norm if kind in (*QWEN3, "hunyuan_v1_dense") else None,
                qk_norm_after_rope=kind == "hunyuan_v1_dense",
                query_growth=_growth(config) if kind == "ministral3" else None,
                window=window,
                rope=own,
            ),
            feed_forward=mlp,
            norm=norm,
        )
        for own, window in zip(ropes, _windows(config, ropes), strict=True)
    )
    granite = kind == "granite"
    return decoder_model(
        config,
        layers,
        norm,
        context=min(config.context(default=2048), _chunk(config) if kind == "qwen2" else MAX_INTEGER),
        tied=kind in ("smollm3", "ernie4_5"),
        head={"scale": 1 / config.number("logits_scaling", default=1.0)} if granite else None,
        embedding_scale=config.number("embedding_multiplier", default=1.0) / residual if granite else None,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {**ATTENTION, **FEED_FORWARD, **PRE_NORMS}
    if spec.family == "hunyuan_v1_dense":
        layer |= {"mixer.q_norm": "self_attn.query_layernorm", "mixer.k_norm": "self_attn.key_layernorm"}
    if spec.family == "ernie4_5":
        head_dim = spec.stacks["decoder"].layers[0].attention.head_dim
        layer |= {f"mixer.{part}": Source(f"self_attn.{part}_proj", paired(head_dim, head_dim)) for part in ("q", "k")}
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _biases(config: Config) -> tuple[bool, bool, bool]:
    """Whether query, key and value have biases, whether the output matrix has, and whether the feed-forward part has."""
    kind = config.model_type
    if kind == "ernie4_5":
        return (config.flag("use_bias", default=False),) * 3
    mlp = kind not in (*QWEN2, *QWEN3, *MISTRAL, "hunyuan_v1_dense")
    if not mlp:
        config.require("mlp_bias", [False])
    mlp_bias = mlp and config.flag("mlp_bias", default=False)
    if kind in QWEN2:
        config.raw("attention_bias")  # Qwen2 has biases whatever this says
        return True, False, mlp_bias
    if kind in MISTRAL:
        config.require("attention_bias", [False])
        return False, False, mlp_bias
    if kind == "seed_oss":
        return config.flag("attention_bias", default=True), config.flag("attention_out_bias", default=False), mlp_bias
    bias = config.flag("attention_bias", default=False)
    return bias, bias, mlp_bias


def hunyuan_keys(config: Config) -> None:
    """Read the keys of Tencent's own code: token ids, heads of other tasks, and variants that no public model has."""
    for key in ("add_classification_head", "use_cla"):
        config.require(key, [False])
    for key in ("use_qk_norm", "use_rotary_pos_emb"):
        config.require(key, [True])
    config.require("norm_type", ["rms"])
    unused = """
        attention_head_dim cla_share_factor class_num dense_list im_end_id im_newline_id im_start_id mask_init_id org_vocab_size pad_id
        pool_type text_end_id text_start_id
    """
    for key in unused.split():
        config.raw(key)


def _growth(config: Config) -> QueryGrowth:
    """Ministral 3 scales queries up with each further span of the original context."""
    settings = config.rope_settings()
    settings.raw("max_position_embeddings")  # repeats the key of the same name outside
    return QueryGrowth(settings.number("llama_4_scaling_beta"), max(int(original_context(config, settings)), 1))


def _chunk(config: Config) -> int:
    """How many tokens Qwen2.5-1M reads before it attends in chunks, which tgen does not implement."""
    if not config.mapping("dual_chunk_attention_config"):
        return MAX_INTEGER
    settings = config.part("dual_chunk_attention_config", config.mapping("dual_chunk_attention_config"))
    settings.raw("original_max_position_embeddings")
    return max(settings.integer("chunk_size") - settings.integer("local_size"), 1)


def _ropes(config: Config, rope: RopeSpec, count: int) -> list[RopeSpec | None]:
    """The rotations of each layer: SmolLM3 leaves them out in some."""
    if config.model_type != "smollm3":
        return [rope] * count
    every, rotated = config.integer("no_rope_layer_interval", default=4), config.raw("no_rope_layers")
    if rotated is None:
        rotated = [int((layer + 1) % every != 0) for layer in range(count)]
    if not isinstance(rotated, list) or len(rotated) != count or not all(one in (0, 1) for one in rotated):
        raise UnsupportedError("config.json: no_rope_layers is not implemented", f"implemented: 1 or 0 for each of {count} layers")
    return [rope if one else None for one in rotated]


def _windows(config: Config, ropes: list[RopeSpec | None]) -> list[int | None]:
    """For each layer, how many of the latest keys a query sees; None is all of them."""
    count, kind = len(ropes), config.model_type
    if kind in MISTRAL:
        return config.windows(count)
    if kind in (*QWEN2, *QWEN3, "smollm3"):
        config.raw("max_window_layers")  # has no effect without use_sliding_window
        if config.flag("use_sliding_window", default=False):
            if kind == "smollm3":
                return config.windows(count, lambda layer: ropes[layer] is None)
            first = config.integer("max_window_layers", default=28, minimum=0)
            return config.windows(count, lambda layer: layer >= first)
    config.require("layer_types", [["full_attention"] * count])
    if kind not in ("llama", "granite", "arcee"):
        config.raw("sliding_window")  # without use_sliding_window it has no effect
    return [None] * count
