"""Where a GGUF file holds each parameter: llama.cpp has one set of names for all architectures, as tgen has, so that one table is enough.

GGUF stores every matrix [outputs, inputs], and Gemma's norm weights with their 1 added. llama.cpp rotates pairs of neighbours in some
architectures, and for them the rows of queries and keys stand in that order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tgen.checkpoint.stored import StoredTensor
from tgen.families.table import Part, Rows, Source, Table, Take, paired
from tgen.spec.records import AttentionSpec, LayerSpec, ModelSpec
from tgen.spec.shapes import parameters

MODULES = {
    "embedding": "token_embd",
    "head.out": "output",
    "positions": "position_embd",
    "types": "token_types",
    "embedding_norm": "token_embd_norm",
    "final_norm": "output_norm",
    "bias": "blk.0.attn_rel_b",
}
LAYER = {
    "mixer_norm": "attn_norm",
    "mixer_out_norm": "post_attention_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward_out_norm": "post_ffw_norm",
    "mixer.q": "attn_q",
    "mixer.k": "attn_k",
    "mixer.v": "attn_v",
    "mixer.out": "attn_output",
    "mixer.q_norm": "attn_q_norm",
    "mixer.k_norm": "attn_k_norm",
    "mixer.distances": "attn_rel_b",
    "cross_norm": "cross_attn_norm",
    "cross.q": "cross_attn_q",
    "cross.k": "cross_attn_k",
    "cross.v": "cross_attn_v",
    "cross.out": "cross_attn_o",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
    "feed_forward.router": "ffn_gate_inp",
    "feed_forward.shared_gate": "ffn_gate_inp_shexp",
    "feed_forward.shared.gate": "ffn_gate_shexp",
    "feed_forward.shared.up": "ffn_up_shexp",
    "feed_forward.shared.down": "ffn_down_shexp",
}
APART = {"mixer.out": "attn_o"}  # where encoder and decoder stand apart
AFTER = {"mixer_norm": "attn_output_norm", "feed_forward_norm": "layer_output_norm"}  # where norms follow the sums
STACKED, FUSED = "_exps", "attn_qkv"
ONE_ROW = ".ffn_gate_inp_shexp.weight"
SINKS = "sinks"
WIDEST_HEAD = 2**16  # numbers; a damaged width must not fill the memory with an order of rows, and matching refuses its shape
GATED = ("feed_forward.gate", "feed_forward.up")  # in this order, where one matrix holds both
IGNORED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def gguf_table(spec: ModelSpec, stored: Collection[str], *, interleaved: bool) -> Table:
    """The source of every parameter, where the file holds the tensors of these names."""
    both = len(spec.stacks) > 1
    sources: dict[str, Source] = {}
    for parameter in parameters(spec):
        module, kind = parameter.rsplit(".", 1)
        stack, _, name = module.partition(".") if module.partition(".")[0] in spec.stacks else ("", "", module)
        before = f"{stack[:3]}." if both and stack else ""
        if name.startswith("layers."):
            _, number, name = name.split(".", 2)
            layer = spec.stacks[stack].layers[int(number)]
            before += f"blk.{number}."
            if kind == SINKS:
                sources[parameter] = Source(f"{before}attn_{SINKS}.weight")
                continue
            sources[parameter] = _inside_layer(name, layer, before, stored, interleaved=interleaved).inside(before, f".{kind}")
        else:
            sources[parameter] = Source(f"{before}{MODULES.get(name, name)}.{kind}")
    return Table(sources, ignored=IGNORED)


def split_experts(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors with each stack of a layer's experts cut into its members.

    `blk.0.ffn_up_exps.weight` becomes `blk.0.ffn_up_exps.0.weight` and so on. A matrix of one row is a vector in some files: llama.cpp's
    quantiser drops lengths of 1 at the end of its order of axes.
    """
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        if name.endswith(ONE_ROW) and len(tensor.shape) == 1:
            tensor = replace(tensor, shape=(1, *tensor.shape))
        module, _, kind = name.rpartition(".")
        if not module.endswith(STACKED) or len(tensor.shape) < 2 or not tensor.shape[0]:
            found[name] = tensor
            continue
        for number in range(tensor.shape[0]):
            found[f"{module}.{number}.{kind}"] = tensor.member(number)
    return found


def _inside_layer(name: str, layer: LayerSpec, before: str, stored: Collection[str], *, interleaved: bool) -> Source:
    """The source of a module of a layer, without what stands before and behind its name."""
    names = LAYER | (AFTER if layer.residual == "post" else {}) | ({} if before.startswith("blk.") else APART)
    part, _, own = name.partition(".")
    if own.startswith("experts."):
        _, number, matrix = own.split(".")
        return Source(f"ffn_{matrix}{STACKED}.{number}")
    if part == "mixer" and own in ("q", "k", "v"):
        dim = layer.attention.head_dim
        order: Take = paired(dim, dim) if interleaved and own != "v" and dim <= WIDEST_HEAD else ()
        if f"{before}{FUSED}.weight" in stored:
            return Source(FUSED, (_rows(own, layer.attention), *order))
        return Source(names[name], order)
    if name == "feed_forward_norm" and layer.residual == "pre" and f"{before}ffn_norm.weight" not in stored:
        return Source("post_attention_norm")
    if name in GATED and f"{before}ffn_gate.weight" not in stored and getattr(layer.feed_forward, "gated", False):
        return Source("ffn_up", (Part(GATED.index(name), 2),))
    return Source(names.get(name, name))


def _rows(part: str, mixer: AttentionSpec) -> Rows:
    """The rows of queries, keys or values in a matrix of all three."""
    q, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    return {"q": Rows(0, q), "k": Rows(q, q + kv), "v": Rows(q + kv, q + 2 * kv)}[part]
