"""Gemma 1, 2 and 3 (text), EmbeddingGemma: scaled embeddings, norms whose weights are stored as their distance from 1.

Since Gemma 2, norms stand before and after each part, and layers with a sliding window take turns with full ones. Gemma 2 bounds scores
and logits; Gemma 3 norms queries and keys instead, and has a separate rotation base for windowed layers. EmbeddingGemma is a Gemma 3 that
looks both ways, and gives vectors only.
"""

from __future__ import annotations

from typing import Any

from tgen.families.config import Config
from tgen.families.decoder import BUFFERS
from tgen.families.table import PLUS_ONE, Names, Source, Table, make_table
from tgen.spec.positions import RopeSpec
from tgen.spec.records import Activation, AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gemma, gemma2 or gemma3_text."""
    first = config.model_type == "gemma"
    third = config.model_type == "gemma3_text"
    both_ways = third and config.flag("use_bidirectional_attention", default=False)
    config.require("use_bidirectional_attention", [both_ways])
    config.raw("_sliding_window_pattern")  # repeats sliding_window_pattern or layer_types
    config.require("sliding_window_size", [config.raw("sliding_window")])
    config.raw("attn_logit_softcapping")  # the code of Gemma 1 and 3 does not apply it
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.integer("head_dim", default=256), config.kv_heads(heads)
    norm, bias = NormSpec("rms", config.number("rms_norm_eps", default=1e-6)), config.flag("attention_bias", default=False)
    mlp = MlpSpec(config.integer("intermediate_size"), _activation(config), gated=True, bias=False)
    every, count = config.integer("sliding_window_pattern", default=6) if third else 2, config.layers("num_hidden_layers")
    windows = [None] * count if first else config.windows(count, lambda layer: bool((layer + 1) % every))
    if both_ways:  # half of the window lies before a query and half behind it
        windows = [None if window is None else window // 2 + 1 for window in windows]
    full, local = two_ropes(config, head_dim) if third else (config.rope(head_dim),) * 2
    layers = tuple(
        LayerSpec(
            mixer=AttentionSpec(
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                scale=(head_dim if first else config.number("query_pre_attn_scalar", default=256)) ** -0.5,
                bias=bias,
                out_bias=bias,
                qk_norm=norm if third else None,
                softcap=None if first or third else softcap(config, "attn_logit_softcapping", default=50.0),
                window=window,
                rope=full if window is None else local,
            ),
            feed_forward=mlp,
            norm=norm,
            residual="pre" if first else "sandwich",
        )
        for window in windows
    )
    stack = StackSpec(layers, causal=not both_ways, final_norm=norm, embedding_scale=width**0.5)
    head = HeadSpec(
        tied=config.flag("tie_word_embeddings", default=True),
        softcap=None if first else softcap(config, "final_logit_softcapping", default=None if third else 30.0),
    )
    return ModelSpec(
        family=config.model_type,
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("max_position_embeddings", default=8192),
        head=None if both_ways else head,
        encoder=stack if both_ways else None,
        decoder=None if both_ways else stack,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": Source("input_layernorm", PLUS_ONE),
        "mixer.q": "self_attn.q_proj",
        "mixer.k": "self_attn.k_proj",
        "mixer.v": "self_attn.v_proj",
        "mixer.out": "self_attn.o_proj",
        "mixer.q_norm": Source("self_attn.q_norm", PLUS_ONE),
        "mixer.k_norm": Source("self_attn.k_norm", PLUS_ONE),
        "mixer_out_norm": Source("post_attention_layernorm", PLUS_ONE),
        "feed_forward_norm": Source("pre_feedforward_layernorm", PLUS_ONE),
        "feed_forward_out_norm": Source("post_feedforward_layernorm", PLUS_ONE),
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    if spec.family == "gemma":
        layer["feed_forward_norm"] = layer["mixer_out_norm"]
    modules: Names = {"embedding": "model.embed_tokens", "head.out": "lm_head"}
    stack = next(iter(spec.stacks))
    modules[f"{stack}.final_norm"] = Source("model.norm", PLUS_ONE)
    return make_table(spec, modules, {stack: ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def two_ropes(config: Config, head_dim: int) -> tuple[RopeSpec, RopeSpec]:
    """Rotations of full layers and of windowed ones; transformers 5 writes one set for each kind of layer."""
    if "full_attention" in config.mapping("rope_parameters"):
        return config.rope(head_dim, default_theta=1e6, kind="full_attention"), config.rope(head_dim, kind="sliding_attention")
    return config.rope(head_dim, default_theta=1e6), RopeSpec(head_dim, config.number("rope_local_base_freq", default=10000.0))


def _activation(config: Config) -> Activation:
    """Gemma 1 says "gelu" where it means the tanh approximation; later models name the activation in another key."""
    if config.model_type == "gemma":
        config.raw("hidden_activation")
        return "gelu_tanh" if config.raw("hidden_act") == "gelu" else config.activation("hidden_act", default="gelu_pytorch_tanh")
    config.raw("hidden_act")
    return config.activation("hidden_activation", default="gelu_pytorch_tanh")


def softcap(config: Config, key: str, default: float | None) -> float | None:
    """A bound, or none where the folder says null."""
    absent: Any = key not in config.values
    return default if absent else None if config.raw(key) is None else config.number(key)
