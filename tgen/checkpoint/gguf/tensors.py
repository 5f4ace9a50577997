"""Says which tensor of a GGUF file holds each parameter.

llama.cpp and tgen each have one set of names for all architectures, so one table serves all. GGUF stores every matrix [outputs, inputs],
and Gemma's norm weights with their 1 added. In some architectures llama.cpp rotates pairs of neighbours, and their files hold the rows of
queries and keys in that order.
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
TWO_STACKS = {"mixer.out": "attn_o"}  # the names that differ in an encoder-decoder
POST_NORM = {"mixer_norm": "attn_output_norm", "feed_forward_norm": "layer_output_norm"}  # those of norms that follow the residual sum
STACKED, FUSED = "_exps", "attn_qkv"
ONE_ROW = ".ffn_gate_inp_shexp.weight"
SINKS = "sinks"
# Numbers of a head. The order of rows of a wider head, which only a damaged file has, could fill the memory; matching refuses its shape.
WIDEST_HEAD = 2**16
GATED = ("feed_forward.gate", "feed_forward.up")  # if one matrix holds both, they are in this order
IGNORED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def gguf_table(spec: ModelSpec, stored: Collection[str], *, interleaved: bool) -> Table:
    """The source of every parameter in a file that holds the tensors with the names in `stored`."""
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
    """The tensors, with each stack of a layer's experts cut into one matrix for each expert.

    `blk.0.ffn_up_exps.weight` becomes `blk.0.ffn_up_exps.0.weight` and so on. Some files store a matrix of one row as a vector, because
    llama.cpp's quantiser drops the last axes of length 1, and llama.cpp counts the rows as a last axis. It becomes a matrix again.
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
    """The source of a module of a layer, without the layer's prefix and the ending of the tensor's name."""
    names = LAYER | (POST_NORM if layer.residual == "post" else {}) | ({} if before.startswith("blk.") else TWO_STACKS)
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
    """The rows of queries, keys or values in a fused matrix of all three."""
    q, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    return {"q": Rows(0, q), "k": Rows(q, q + kv), "v": Rows(q + kv, q + 2 * kv)}[part]
