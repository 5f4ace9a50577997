"""What a torch model does besides generating: it encodes texts, predicts tokens at masks, and counts the bytes of a decode step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tgen.executors.torch.layers import Experts
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.transformer import Transformer
from tgen.spec.cache import row_numbers, state_numbers

Floats = npt.NDArray[np.float32]


@torch.inference_mode()
def encode(model: Transformer, texts: Sequence[Sequence[int]]) -> list[Floats]:
    """Hidden states of each text, [n, width]: the encoder's, or a lone decoder's. All texts are read in one pass."""
    with memory_errors(f"reading {sum(map(len, texts))} tokens"):
        return [states.float().cpu().numpy() for states in (model.encode_texts(texts) if texts else [])]


@torch.inference_mode()
def masked_logits(model: Transformer, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Floats:
    """Logits at some positions of each text, text after text: [all places, vocab]."""
    starts = accumulate(map(len, texts), initial=0)
    chosen = [start + place for start, found in zip(starts, places, strict=False) for place in found]
    with memory_errors(f"reading {sum(map(len, texts))} tokens"):
        hidden = torch.cat(model.encode_texts(texts))
        return model.logits(hidden[chosen]).float().cpu().numpy()


def step_bytes(model: Transformer, length: int) -> int:
    """Bytes that a decode step reads after `length` tokens: the whole cache, and all weights except all but one row of each lookup table.

    Of a mixture's experts, it counts as many as a token takes.
    """
    decoder = model.spec.decoder
    cache = row_numbers(model.spec, length) * model.dtype.itemsize + state_numbers(model.spec) * 4
    # A tied head multiplies by the whole embedding, unless one of the two was swapped for another module.
    table = getattr(model.embedding, "weight", None)
    tied = table is not None and model.head is not None and getattr(model.head.out, "weight", None) is table
    unread = 0 if tied else _unread(model.embedding, model.spec.vocab)
    if model.decoder is not None and decoder is not None and decoder.positions is not None and model.decoder.positions is not None:
        unread += _unread(model.decoder.positions, decoder.positions.length)
    for part in model.modules():
        if isinstance(part, Experts):
            unread += sum(map(_size, part.experts[part.spec.router.chosen :]))
    return _size(model) - unread + cache


def describe(model: Transformer) -> str:
    """Executor, device, number format and threads, for people."""
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    return f"torch on {model.device.type}, {str(model.dtype).removeprefix('torch.')}{threads}"


def _unread(table: nn.Module, rows: int) -> int:
    """The bytes of all rows of a table but one."""
    return _size(table) * (rows - 1) // rows


def _size(module: nn.Module) -> int:
    """The bytes of all weights; weights that several parts share count once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
