"""OLMo 1 to 3 and EXAONE 4: norms without parameters before each part (OLMo 1), or norms on each part's output alone (the others).

OLMo 2 and 3 norm queries and keys over all heads together, EXAONE 4 over each. OLMo 3 and EXAONE 4 mix layers with a sliding window and
full ones; OLMo 3 scales the rotations of full layers only, EXAONE 4 leaves them out there.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, decoder_model, gated_mlp, grouped_attention
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import RopeSpec
from tgen.spec.records import LayerSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is olmo, olmo2, olmo3 or exaone4."""
    kind = config.model_type
    first, exaone = kind == "olmo", kind == "exaone4"
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", 1e-5, weight=False) if first else NormSpec("rms", config.number("rms_norm_eps", default=1e-5))
    bias = not exaone and config.flag("attention_bias", default=False)
    clip = config.number("clip_qkv", maximum=1e30) if first and config.raw("clip_qkv") is not None else None
    windows, mlp = _windows(config), gated_mlp(config)
    layers = (
        LayerSpec(
            mixer=grouped_attention(
                config,
                head_dim,
                bias=bias,
                clip=clip,
                qk_norm=None if first else norm,
                qk_norm_span="head" if exaone else "width",
                window=window,
                rope=rope,
            ),
            feed_forward=mlp,
            norm=norm,
            residual="pre" if first else "output",
        )
        for window, rope in zip(windows, _ropes(config, head_dim, windows), strict=True)
    )
    return decoder_model(config, layers, norm, context=config.context(default=2048))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    norms: Names = {"mixer_out_norm": "post_attention_layernorm", "feed_forward_out_norm": "post_feedforward_layernorm"}
    layer = {**ATTENTION, **FEED_FORWARD, **norms}
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)


def _windows(config: Config) -> list[int | None]:
    count, kind = config.layers("num_hidden_layers"), config.model_type
    if kind in ("olmo", "olmo2"):
        return [None] * count
    every = 4
    if kind == "exaone4":
        pattern = config.raw("sliding_window_pattern")  # "LLLG" is how EXAONE's own code says 4
        every = len(pattern) if isinstance(pattern, str) and pattern else config.integer("sliding_window_pattern", default=4, minimum=0)
    return config.windows(count, lambda layer: bool((layer + 1) % max(every, 1)))


def _ropes(config: Config, head_dim: int, windows: list[int | None]) -> list[RopeSpec | None]:
    """The rotations of each layer."""
    kind = config.model_type
    if kind != "olmo3":
        rope = config.rope(head_dim)
        full = None if kind == "exaone4" and any(windows) else rope
        return [full if window is None else rope for window in windows]
    if "full_attention" in config.mapping("rope_parameters"):
        full, local = (config.rope(head_dim, default_theta=5e5, kind=f"{name}_attention") for name in ("full", "sliding"))
    else:
        full = config.rope(head_dim, default_theta=5e5)
        local = RopeSpec(head_dim, full.theta)
    return [full if window is None else local for window in windows]
