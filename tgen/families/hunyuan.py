"""Hunyuan's mixture of experts: Hunyuan's dense attention, and a part that all tokens go through beside the experts."""

from __future__ import annotations

from tgen.errors import CheckpointError
from tgen.families.config import HINT, Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, PRE_NORMS, decoder_model, gated_mlp, grouped_attention
from tgen.families.experts import MAX_EXPERTS, expert_names, shared_names
from tgen.families.llama import hunyuan_keys
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import ExpertsSpec, LayerSpec, ModelSpec, NormSpec, RouterSpec

# Keys about tokens that training drops, about latent attention and groups, which are switched off, and about the vision of other models.
UNUSED = """
    kv_lora_rank moe_drop_tokens moe_random_routing_dropped_token n_group num_media_embeds q_lora_rank qk_nope_head_dim qk_rope_head_dim
    skip_cls_token topk_group v_head_dim video_end_id video_start_id vit_add_patchemb_bias vit_input_resolution vit_mapping_type
    vit_norm_type vit_patch vit_path vit_remove_prenorm vit_token vit_type vit_used_rms_norm xdrope_section
""".split()


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is hunyuan_v1_moe."""
    width, heads, count = config.integer("hidden_size"), config.integer("num_attention_heads"), config.layers("num_hidden_layers")
    head_dim, bias = config.head_dim(width, heads), config.flag("attention_bias", default=False)
    norm, part = NormSpec("rms", config.number("rms_norm_eps", default=1e-5)), gated_mlp(config)
    hunyuan_keys(config)
    for key in UNUSED:
        config.raw(key)
    for key in ("group_limited_greedy", "mlp_bias", "position_embedding_xdrope", "use_mla"):
        config.require(key, [False])
    for key in ("norm_topk_prob", "use_mixed_mlp_moe"):
        config.require(key, [True])
    config.require("routed_scaling_factor", [1.0])
    config.require("moe_layer_num_skipped", [0])
    config.require("moe_intermediate_size", [part.width, [part.width] * count])
    config.require("num_shared_expert", [1, [1] * count])
    attention = grouped_attention(config, head_dim, bias=bias, qk_norm=norm, qk_norm_after_rope=True, rope=config.rope(head_dim))
    experts, chosen = (
        _of_layers(config, keys, count) for keys in (("num_experts", "num_local_experts"), ("moe_topk", "num_experts_per_tok"))
    )
    if len(set(experts)) > 1:
        raise CheckpointError(f"config.json: layers with {min(experts)} to {max(experts)} experts; all must have as many", HINT)
    if max(chosen) > experts[0]:
        raise CheckpointError(f"config.json: {max(chosen)} experts for each token, but layers have {experts[0]}", HINT)
    layers = (LayerSpec(attention, ExpertsSpec(RouterSpec(experts[0], few, normalised=True), part, part), norm) for few in chosen)
    return decoder_model(config, layers, norm, context=config.context(default=2048))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **ATTENTION,
        **PRE_NORMS,
        "mixer.q_norm": "self_attn.query_layernorm",
        "mixer.k_norm": "self_attn.key_layernorm",
        **expert_names(spec),
        **shared_names("mlp.shared_mlp"),
        "feed_forward.router": "mlp.gate.wg",
    }
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _of_layers(config: Config, keys: tuple[str, ...], count: int) -> list[int]:
    """A number for each layer: a list, or one number for all, under one of two keys that mean the same."""
    key = next((key for key in keys if config.raw(key) is not None), keys[0])
    values = config.raw(key)
    for other in keys:
        config.require(other, [values])
    if not isinstance(values, list):
        return [config.integer(key, maximum=MAX_EXPERTS)] * count
    if len(values) != count:
        raise CheckpointError(f"config.json: {key} has {len(values)} numbers for {count} layers", HINT)
    return [Config({key: value}).integer(key, maximum=MAX_EXPERTS) for value in values]
