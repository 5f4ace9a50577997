"""Gemma 3n (text): several residual streams, a vector for each layer and token, and late layers that read the keys of earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist

from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import HINT, Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, decoder_model
from tgen.families.gemma import softcap, two_ropes
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec
from tgen.spec.streams import LayerVectorSpec, StreamsSpec

# What Gemma 3n and Gemma 4 have in common.
VECTOR_NAMES: Names = {
    **ATTENTION,
    **FEED_FORWARD,
    "mixer_norm": "input_layernorm",
    "mixer_out_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_out_norm": "post_feedforward_layernorm",
    "vector_gate": "per_layer_input_gate",
    "vector_out": "per_layer_projection",
    "vector_norm": "post_per_layer_input_norm",
}
VECTOR_MODULES: Names = {
    **MODULES,
    "decoder.vectors.table": "model.embed_tokens_per_layer",
    "decoder.vectors.matrix": "model.per_layer_model_projection",
    "decoder.vectors.norm": "model.per_layer_projection_norm",
}
MOST_STREAMS = 64


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gemma3n_text."""
    heads, count = config.integer("num_attention_heads"), config.layers("num_hidden_layers")
    head_dim, kv_heads, bias = config.integer("head_dim", default=256), config.kv_heads(heads), config.flag("attention_bias", default=False)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6))
    windows = config.windows(count, lambda layer: bool((layer + 1) % 5), config.integer("sliding_window", default=512))
    full, local = two_ropes(config, head_dim)
    activation = config.activation("hidden_activation", default="gelu_pytorch_tanh")
    for key in ("altup_coef_clip", "altup_lr_multiplier", "query_pre_attn_scalar", "sliding_window_pattern"):
        config.raw(key)  # for training alone, without effect, or repeats layer_types
    layers = (
        LayerSpec(
            AttentionSpec(
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                scale=1.0,
                bias=bias,
                out_bias=bias,
                qk_norm=norm,
                v_norm=NormSpec("rms", norm.eps, weight=False),
                shares=shares,
                window=window,
                rope=full if window is None else local,
            ),
            MlpSpec(inner, activation, gated=True, bias=False, cutoff=cutoff),
            norm,
            residual="sandwich",
            laurel=config.integer("laurel_rank", default=64),
            vector=vector_spec(config, config.integer("hidden_size_per_layer_input", default=256)),
            streams=_streams(config),
        )
        for window, shares, inner, cutoff in zip(
            windows, shared_layers(config, windows, default=15), _widths(config, count), _cutoffs(config, count), strict=True
        )
    )
    return scaled_model(config, layers, norm, context=32768, bound=30.0)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **VECTOR_NAMES,
        "laurel_in": "laurel.linear_left",
        "laurel_out": "laurel.linear_right",
        "laurel_norm": "laurel.post_laurel_norm",
        "streams.norm": "altup.router_norm",
        "streams.router": "altup.modality_router",
        "streams.prediction": "altup.prediction_coefs",
        "streams.correction": "altup.correction_coefs",
        "streams.scale": "altup.correct_output_scale",
    }
    first = spec.stacks["decoder"].layers[0].streams
    assert first is not None
    ends = {"opening": "altup_projections", "closing": "altup_unembed_projections"}
    modules = VECTOR_MODULES | {
        f"decoder.streams.{end}.{number}": f"model.{theirs}.{number}" for end, theirs in ends.items() for number in range(first.count - 1)
    }
    ignored = (*BUFFERS, *(() if first.scaled else ("altup.correct_output_scale",)))
    layers = {"decoder": ("model.layers", layer)}
    return make_table(spec, modules, layers, prefixes=("model.",), ignored=ignored, apart=unused_keys(spec))


def scaled_model(config: Config, layers: Iterable[LayerSpec], norm: NormSpec, *, context: int, bound: float | None) -> ModelSpec:
    """A model whose embeddings are scaled. The context and the bound of the logits hold if the folder does not say."""
    return decoder_model(
        config,
        layers,
        norm,
        context=config.context(default=context),
        tied=True,
        head={"softcap": softcap(config, "final_logit_softcapping", default=bound)},
        embedding_scale=config.integer("hidden_size") ** 0.5,
    )


def vector_spec(config: Config, width: int) -> LayerVectorSpec:
    """The vectors of each layer and token."""
    return LayerVectorSpec(width, config.integer("vocab_size_per_layer_input", default=262144))


def shared_layers(config: Config, windows: list[int | None], *, default: int) -> list[int | None]:
    """For each layer, the layer whose keys and values it reads; None for its own. The last ones read those of one before, of their kind."""
    count, shared = len(windows), config.integer("num_kv_shared_layers", default=default, minimum=0)
    first = count - shared
    last = {window is None: layer for layer, window in enumerate(windows[: max(first, 0)])}
    if any((window is None) not in last for window in windows):
        raise CheckpointError(f"config.json: num_kv_shared_layers = {shared} leaves no keys of each kind in {count} layers", HINT)
    return [last[window is None] if layer >= first else None for layer, window in enumerate(windows)]


def unused_keys(spec: ModelSpec) -> tuple[str, ...]:
    """The beginnings of the names of keys and values that a folder may hold for layers that read those of others."""
    layers = spec.stacks["decoder"].layers
    shared = [number for number, layer in enumerate(layers) if layer.attention.shares is not None]
    return tuple(f"model.layers.{number}.self_attn.{part}" for number in shared for part in ("k_proj.", "v_proj.", "k_norm.", "v_norm."))


def _streams(config: Config) -> StreamsSpec:
    count = config.integer("altup_num_inputs", default=4, maximum=MOST_STREAMS)
    active = config.integer("altup_active_idx", default=0, minimum=0, maximum=count - 1)
    return StreamsSpec(count, active, config.flag("altup_correct_scale", default=True))


def _widths(config: Config, count: int) -> list[int]:
    """The inner width of each layer's feed-forward part."""
    values = config.raw("intermediate_size")
    if not isinstance(values, list):
        return [config.integer("intermediate_size")] * count
    if len(values) != count:
        raise CheckpointError(f"config.json: intermediate_size has {len(values)} numbers for {count} layers", HINT)
    return [Config({"intermediate_size": value}).integer("intermediate_size") for value in values]


def _cutoffs(config: Config, count: int) -> list[float | None]:
    """How many standard deviations above the mean a layer's gate must lie to count, from the share of gates that become 0."""
    shares = config.raw("activation_sparsity_pattern")
    if shares is None:
        sparse = 10 if count > 10 else 0
        shares = [0.95] * sparse + [0.0] * (count - sparse)
    known = isinstance(shares, list) and len(shares) == count
    if not known or not all(isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one < 1 for one in shares):
        raise UnsupportedError(
            "config.json: this activation_sparsity_pattern is not implemented", f"implemented: from 0 to less than 1 for {count} layers"
        )
    return [NormalDist().inv_cdf(one) if one else None for one in shares]
