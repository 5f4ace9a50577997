"""RWKV 4: each block is a weighted mean over positions, and a feed-forward part that sees two of them; tgen has a layer for each."""

from __future__ import annotations

from tgen.families.config import MAX_INTEGER, Config
from tgen.families.decoder import decoder_model
from tgen.families.mamba import ENDLESS
from tgen.families.table import Reshape, Source, Table
from tgen.spec.records import LayerSpec, ModelSpec, NormSpec
from tgen.spec.recurrent import ChannelMixSpec, TimeMixSpec
from tgen.spec.shapes import parameters

MOST_HALVINGS = 100  # more would leave nothing of the stream in any number format
MODULES = {
    "embedding": "rwkv.embeddings",
    "decoder.embedding_norm": "rwkv.blocks.0.pre_ln",
    "decoder.final_norm": "rwkv.ln_out",
    "head.out": "head",
}
LETTERS = {"r": "receptance", "k": "key", "v": "value"}


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is rwkv."""
    width, blocks = config.integer("hidden_size"), config.layers("num_hidden_layers")
    eps = config.number("layer_norm_epsilon", default=1e-5)
    # transformers halves the residual stream after every `rescale_every` blocks. Without that, the results are the same if each halving
    # multiplies a norm's epsilon by 4.
    every = config.integer("rescale_every", default=6, minimum=-MAX_INTEGER)
    growth = [4.0 ** min(block // every, MOST_HALVINGS) if every > 0 else 1.0 for block in range(blocks + 1)]
    halves = (
        TimeMixSpec(config.integer("attention_hidden_size", default=width)),
        ChannelMixSpec(config.integer("intermediate_size", default=4 * width)),
    )
    config.raw("context_length"), config.raw("max_position_embeddings")  # a state can read any number of ids
    return decoder_model(
        config,
        (LayerSpec(half, None, NormSpec("layer", eps * growth[block])) for block in range(blocks) for half in halves),
        NormSpec("layer", 1e-5 * growth[blocks]),
        context=ENDLESS,
        embedding_norm=NormSpec("layer", eps),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    sources = {}
    for parameter in parameters(spec):
        module, _, kind = parameter.rpartition(".")
        if module in MODULES:
            sources[parameter] = Source(f"{MODULES[module]}.{kind}")
        else:
            number, _, name = parameter.removeprefix("decoder.layers.").partition(".")
            sources[parameter] = _source(name, first=int(number) % 2 == 0).inside(f"rwkv.blocks.{int(number) // 2}.", "")
    return Table(sources, prefixes=("rwkv.",))


def _source(name: str, *, first: bool) -> Source:
    """Where a parameter of the first or the second half of a block is found, within the block."""
    if name.startswith("mixer_norm"):
        return Source(name.replace("mixer_norm", "ln1" if first else "ln2"))
    part, inner = "attention" if first else "feed_forward", name.removeprefix("mixer.")
    match inner.split("."):
        case [letter, "weight"] if letter in LETTERS:
            return Source(f"{part}.{LETTERS[letter]}.weight")
        case ["result", "weight"]:
            return Source(f"{part}.output.weight")
        case [mix] if mix.startswith("mix_"):
            return Source(f"{part}.time_mix_{LETTERS[mix.removeprefix('mix_')]}", (Reshape((-1,), back=(1, 1, -1)),))
    return Source(f"{part}.time_{inner}")
