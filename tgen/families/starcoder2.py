"""StarCoder2 and Nemotron: layer norms, rotary positions, grouped key-value heads, two matrices around an activation.

Nemotron stores norm weights as their distance from 1, rotates half of each head, and squares its ReLU.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, PRE_NORMS, decoder_model, grouped_attention
from tgen.families.table import PLUS_ONE, Names, Source, Table, make_table
from tgen.spec.records import LayerSpec, MlpSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is starcoder2 or nemotron."""
    nemotron = config.model_type == "nemotron"
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("norm_eps" if nemotron else "norm_epsilon", default=1e-5))
    bias = config.flag("attention_bias", default=False) if nemotron else config.flag("use_bias", default=True)
    mlp = MlpSpec(
        config.integer("intermediate_size"),
        config.activation("hidden_act", default="relu2" if nemotron else "gelu_pytorch_tanh"),
        gated=False,
        bias=config.flag("mlp_bias", default=False) if nemotron else bias,
    )
    rope, count = config.rope(head_dim, partial=0.5 if nemotron else None), config.layers("num_hidden_layers")
    if nemotron:
        config.require("rope_percent", [rope.dim / head_dim])  # repeats partial_rotary_factor
    else:
        config.require("mlp_type", ["default"])
        config.require("norm_type", ["layer_norm"])
        config.require("scale_attn_weights", [True])
        for key in ("activation_function", "layer_norm_epsilon", "scale_attention_softmax_in_fp32"):
            config.raw(key)  # other names of keys that are read, and a precision
    layers = (
        LayerSpec(grouped_attention(config, head_dim, bias=bias, window=window, rope=rope), mlp, norm)
        for window in ([None] * count if nemotron else config.windows(count))
    )
    return decoder_model(config, layers, norm, context=config.context(default=4096), tied=not nemotron)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {**ATTENTION, **PRE_NORMS, "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
    modules = dict(MODULES)
    if spec.family == "nemotron":
        layer |= {"feed_forward.up": "mlp.up_proj", "feed_forward.down": "mlp.down_proj"}
        layer |= {f"{ours}.weight": Source(f"{theirs}.weight", PLUS_ONE) for ours, theirs in PRE_NORMS.items()}
        modules["decoder.final_norm.weight"] = Source("model.norm.weight", PLUS_ONE)
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
