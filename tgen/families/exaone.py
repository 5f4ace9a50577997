"""EXAONE 3 and 3.5: Llama with other names, in config.json as in the weights."""

from __future__ import annotations

from tgen.families import llama
from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, FEED_FORWARD, PRE_NORMS
from tgen.families.table import Names, Source, Table, make_table
from tgen.spec.records import ModelSpec

# EXAONE's keys of config.json, and Llama's.
KEYS = {"num_layers": "num_hidden_layers", "layer_norm_epsilon": "rms_norm_eps", "activation_function": "hidden_act"}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is exaone."""
    translated = Config({KEYS.get(key, key): value for key, value in config.values.items()})
    found = llama.spec(translated)
    config.absorb(translated)
    for key in KEYS:
        config.raw(key)
    return found


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found: under EXAONE's own names, or under Llama's, by which transformers 5 calls them."""
    modules: Names = {"embedding": "transformer.wte", "decoder.final_norm": "transformer.ln_f", "head.out": "lm_head"}
    own = {
        "mixer_norm": "ln_1",
        "mixer.q": "attn.attention.q_proj",
        "mixer.k": "attn.attention.k_proj",
        "mixer.v": "attn.attention.v_proj",
        "mixer.out": "attn.attention.out_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.gate": "mlp.c_fc_0",
        "feed_forward.up": "mlp.c_fc_1",
        "feed_forward.down": "mlp.c_proj",
    }
    others = {**ATTENTION, **FEED_FORWARD, **PRE_NORMS}
    layer: Names = {module: Source(name, other=Source(str(others[module]))) for module, name in own.items()}
    renamed = (("transformer.h.", "model.layers."), ("transformer.wte", "model.embed_tokens"), ("transformer.ln_f", "model.norm"))
    layers = {"decoder": ("transformer.h", layer)}
    return make_table(spec, modules, layers, prefixes=("transformer.",), ignored=("rotary.inv_freq",), renamed=renamed)
