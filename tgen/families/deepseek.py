"""DeepSeek V2 and V3 and MiniCPM 3: latent attention; mixtures of experts in DeepSeek, constant factors in MiniCPM."""

from __future__ import annotations

import math

from tgen.families.config import Config
from tgen.families.decoder import BUFFERS, FEED_FORWARD, MODULES, PRE_NORMS, decoder_model, gated_mlp
from tgen.families.experts import counts, dense_first, expert_names, gated, grouped_router, shared_names
from tgen.families.table import Names, Reorder, Rows, Source, Table, make_table, paired
from tgen.spec.records import AttentionSpec, ExpertsSpec, LatentSpec, LayerSpec, ModelSpec, NormSpec, RouterSpec

Q_RANK = {"deepseek_v2": 1536, "deepseek_v3": 1536, "minicpm3": 768}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is deepseek_v2, deepseek_v3 or minicpm3."""
    kind = config.model_type
    mini, count = kind == "minicpm3", config.layers("num_hidden_layers")
    # MiniCPM multiplies what it adds to the residual stream by a factor. Here the stream is divided by that factor instead (see llama.py).
    depth = config.number("scale_depth", default=math.sqrt(count) if "scale_depth" in config.values else 1.4) if mini else 1.0
    residual = depth / math.sqrt(count) if mini else 1.0
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-5 if mini else 1e-6) / residual / residual)
    for key in ("head_dim", "qk_head_dim", "num_nextn_predict_layers", "num_mtp_layers", "ep_size"):
        config.raw(key)  # repeat other keys, or are about training or multi-token prediction
    config.require("mlp_bias", [False])
    mixture = None if mini else _experts(config)
    mixed = [False] * count if mini else dense_first(config, count, default=0 if kind == "deepseek_v2" else 3)
    attention, dense = _attention(config), gated_mlp(config)
    layers = (LayerSpec(attention, mixture if mixture and one else dense, norm) for one in mixed)
    width = config.integer("hidden_size")
    base = config.integer("dim_model_base", default=width if "dim_model_base" in config.values else 256) if mini else width
    return decoder_model(
        config,
        layers,
        norm,
        context=config.context(default=32768 if mini else 4096),
        tied=mini,
        head={"scale": base / width} if mini else None,
        embedding_scale=config.number("scale_emb", default=12.0) / residual if mini else None,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found. DeepSeek rotates pairs of neighbours."""
    attention = spec.stacks["decoder"].layers[0].attention
    latent, rotated = attention.latent, attention.rope.dim if attention.rope else 0
    assert latent is not None
    kept, end = attention.head_dim - rotated, latent.kv_rank + rotated
    neighbours = spec.family != "minicpm3"
    turned = tuple(kept + row for row in (*range(0, rotated, 2), *range(1, rotated, 2)))
    layer: Names = {
        "mixer.q_down": "self_attn.q_a_proj",
        "mixer.q_norm": "self_attn.q_a_layernorm",
        "mixer.q": Source(
            "self_attn.q_proj" if latent.q_rank is None else "self_attn.q_b_proj", (Reorder((*range(kept), *turned)),) * neighbours
        ),
        "mixer.kv_down": Source("self_attn.kv_a_proj_with_mqa", (Rows(0, latent.kv_rank),)),
        "mixer.k_rotated": Source("self_attn.kv_a_proj_with_mqa", (Rows(latent.kv_rank, end), *paired(rotated, rotated) * neighbours)),
        "mixer.kv_norm": "self_attn.kv_a_layernorm",
        "mixer.kv": "self_attn.kv_b_proj",
        "mixer.out": "self_attn.o_proj",
        **PRE_NORMS,
        **FEED_FORWARD,
        **expert_names(spec),
        **shared_names("mlp.shared_experts"),
        "feed_forward.router": "mlp.gate",
        "feed_forward.correction": "mlp.gate.e_score_correction_bias",
    }
    apart = (f"model.layers.{len(spec.stacks['decoder'].layers)}.",) * (spec.family == "deepseek_v3")
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS, apart=apart)


def _attention(config: Config) -> AttentionSpec:
    """The latent attention of every layer."""
    kind = config.model_type
    heads, rotated = config.integer("num_attention_heads"), config.integer("qk_rope_head_dim")
    config.require("num_key_value_heads", [heads])
    if kind == "deepseek_v3":
        config.require("rope_interleave", [True])
    asked = config.raw("q_lora_rank")
    q_rank = None if asked is None and "q_lora_rank" in config.values else config.integer("q_lora_rank", default=Q_RANK[kind])
    share = config.integer("hidden_size") // heads
    value_dim = config.integer("v_head_dim", default=share if kind == "minicpm3" else 128)
    latent = LatentSpec(config.integer("kv_lora_rank"), q_rank, value_dim, NormSpec("rms", 1e-6))
    bias, head_dim = config.flag("attention_bias", default=False), config.integer("qk_nope_head_dim") + rotated
    rope, settings = config.rope(rotated), config.rope_settings()
    scale = head_dim**-0.5
    if rope.scaling is not None and settings.raw("mscale_all_dim"):
        scale *= (0.1 * settings.number("mscale_all_dim", maximum=1e6) * math.log(max(settings.number("factor"), 1.0)) + 1) ** 2
    return AttentionSpec(heads, heads, head_dim, scale, bias=bias, out_bias=bias, latent=latent, rope=rope)


def _experts(config: Config) -> ExpertsSpec:
    """The mixture of DeepSeek's later layers."""
    third = config.model_type == "deepseek_v3"
    experts, chosen = counts(config, "n_routed_experts")
    own, scale = config.integer("moe_intermediate_size"), config.number("routed_scaling_factor", default=2.5 if third else 1.0, maximum=1e6)
    config.require("scoring_func", ["sigmoid" if third else "softmax"])
    if third:
        config.require("topk_method", ["noaux_tc"])
        router = RouterSpec(
            experts, chosen, "sigmoid", correction=True, normalised=config.flag("norm_topk_prob", default=True), scale=scale
        )
        router = grouped_router(config, router, best=2)
    else:
        config.require("topk_method", ["greedy", "group_limited_greedy"])
        config.require("norm_topk_prob", [False])
        router = RouterSpec(experts, chosen, scale=scale)
        if config.text("topk_method", default="greedy") == "greedy":
            config.raw("n_group"), config.raw("topk_group")
        else:
            router = grouped_router(config, router, best=1)
    return ExpertsSpec(router, gated(config, own), gated(config, own * config.integer("n_shared_experts", default=1 if third else 2)))
