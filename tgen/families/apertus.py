"""Apertus and nanochat: no gate, a norm on queries and keys. Apertus learns its activation (xIELU), nanochat's norms have no parameters."""

from __future__ import annotations

from dataclasses import replace

from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, decoder_model, grouped_attention
from tgen.families.table import Names, Reshape, Source, Table, make_table
from tgen.spec.positions import Llama3Scaling, PairScaling, RopeSpec
from tgen.spec.records import LayerSpec, MlpSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is apertus or nanochat."""
    nano = config.model_type == "nanochat"
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6 if nano else 1e-5), weight=not nano)
    bias = config.flag("attention_bias", default=False)
    config.require("mlp_bias", [False])
    config.require("post_norm", [False])
    config.require("qk_norm", [True])
    learned = not nano and config.text("hidden_act", default="xielu") == "xielu"
    activation = "xielu" if learned else config.activation("hidden_act", default="relu2")
    layer = LayerSpec(
        mixer=grouped_attention(
            config,
            head_dim,
            bias=bias,
            qk_norm=norm,
            qk_norm_after_rope=nano,
            rope=_backwards(config.rope(head_dim)) if nano else _rope(config, head_dim),
        ),
        feed_forward=MlpSpec(config.integer("intermediate_size"), activation, gated=False, bias=False),
        norm=norm,
    )
    layers = (layer,) * config.layers("num_hidden_layers")
    context = config.context(default=2048 if nano else 65536)
    if not nano:
        return decoder_model(config, layers, norm, context=context)
    absent = "final_logit_softcapping" not in config.values
    cap = 15.0 if absent else None if config.raw("final_logit_softcapping") is None else config.number("final_logit_softcapping")
    return decoder_model(config, layers, norm, context=context, head={"softcap": cap}, embedding_norm=norm)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        **ATTENTION,
        "mixer_norm": "attention_layernorm",
        "feed_forward_norm": "feedforward_layernorm",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
        "feed_forward": "mlp.act_fn",
        "feed_forward.beta": Source("mlp.act_fn.beta", (Reshape((1,), back=()),)),
    }
    if spec.family == "nanochat":
        layer |= {"feed_forward.up": "mlp.fc1", "feed_forward.down": "mlp.fc2"}
    # The epsilon of xIELU keeps a difference from rounding to zero; it is the same in every model.
    ignored = (*BUFFERS, ".act_fn.eps")
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=ignored)


def _rope(config: Config, head_dim: int) -> RopeSpec:
    """Apertus scales rotations as Llama 3.1 does, even where its folder does not say so."""
    rope = config.rope(head_dim, default_theta=12e6)
    silent = config.raw("rope_parameters") is None and config.raw("rope_scaling") is None
    return replace(rope, scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)) if silent else rope


def _backwards(rope: RopeSpec) -> RopeSpec:
    """The rotation in the opposite direction."""
    if rope.scaling is not None:
        raise UnsupportedError("config.json: scaled rotations are not implemented for nanochat", "implemented: a rope_type of default")
    return replace(rope, scaling=PairScaling((-1.0,) * (rope.dim // 2)))
