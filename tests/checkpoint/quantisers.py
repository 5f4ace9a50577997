"""Matrices as GPTQ, AWQ, FP8, compressed-tensors and MLX store them, written from the descriptions of their layouts.

Each function takes a matrix [outputs, inputs] of floats and returns the tensors of its module, by the endings of their names, and the
numbers that they stand for. Numbers are packed bit by bit, slowly and plainly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Quantised = tuple[dict[str, Tensor], Tensor]
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # the place in a word of each of eight outputs


def words(integers: np.ndarray, bits: int) -> Tensor:
    """Integers in words along the last axis: bit b of integer i is bit i * bits + b of the row."""
    each = integers[..., None] >> np.arange(bits) & 1
    stream = each.reshape(*integers.shape[:-1], -1)
    stream = np.pad(stream, [(0, 0)] * (stream.ndim - 1) + [(0, -stream.shape[-1] % 32)])
    found = (stream.reshape(*stream.shape[:-1], -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1)
    return torch.from_numpy(found.astype(np.uint32).view(np.int32))


def rounded(
    matrix: Tensor, bits: int, index: Sequence[int], *, symmetric: bool, scale_dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
    """Integers [outputs, inputs], zero points and scales [outputs, groups], and the numbers; `index` is the group of each input."""
    group = torch.tensor(index)
    groups, most = int(group.max()) + 1, 2**bits - 1
    low = torch.stack([matrix[:, group == one].amin(-1).clamp(max=0) for one in range(groups)], -1)
    high = torch.stack([matrix[:, group == one].amax(-1).clamp(min=0) for one in range(groups)], -1)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / most).to(scale_dtype).float()
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (-low / scale).round().clamp(1, most)
    integers = (matrix / scale[:, group] + zero[:, group]).round().clamp(0, most)
    numbers = (integers - zero[:, group]) * scale[:, group]
    return integers.numpy().astype(np.int64), zero.numpy().astype(np.int64), scale, numbers


def groups_of(columns: int, size: int, *, mixed: bool = False) -> list[int]:
    """Each input's group: neighbours, or mixed as activations order them."""
    index = [column // size for column in range(columns)]
    return (
        [index[place] for place in torch.randperm(columns, generator=torch.Generator().manual_seed(columns)).tolist()] if mixed else index
    )


def gptq(matrix: Tensor, bits: int, size: int, *, symmetric: bool = True, mixed: bool = False, added: int = 1) -> Quantised:
    """`added` is what the layout's version leaves out of zero points."""
    index = groups_of(matrix.shape[1], size, mixed=mixed)
    integers, zeros, scale, numbers = rounded(matrix, bits, index, symmetric=symmetric, scale_dtype=torch.float16)
    tensors = {
        "qweight": words(integers, bits).T.contiguous(),
        "qzeros": words(zeros.T - added, bits),
        "scales": scale.T.half().contiguous(),
        "g_idx": torch.tensor(index, dtype=torch.int32),
    }
    return tensors, numbers


def awq(matrix: Tensor, size: int) -> Quantised:
    index = groups_of(matrix.shape[1], size)
    integers, zeros, scale, numbers = rounded(matrix, 4, index, symmetric=False, scale_dtype=torch.float16)

    def ordered(values: np.ndarray) -> Tensor:
        placed = np.empty_like(values).reshape(len(values), -1, 8)
        placed[..., AWQ_PLACES] = values.reshape(placed.shape)
        return words(placed.reshape(values.shape), 4)

    return {"qweight": ordered(integers.T), "qzeros": ordered(zeros.T), "scales": scale.T.half().contiguous()}, numbers


def compressed(matrix: Tensor, bits: int, size: int, *, mixed: bool = False) -> Quantised:
    """Packed integers with zero points, and with groups that are named for each column if `mixed`."""
    index = groups_of(matrix.shape[1], size, mixed=mixed)
    integers, zeros, scale, numbers = rounded(matrix, bits, index, symmetric=False, scale_dtype=torch.bfloat16)
    tensors = {
        "weight_packed": words(integers, bits),
        "weight_scale": scale.bfloat16(),
        "weight_shape": torch.tensor(matrix.shape),
        "weight_zero_point": words(zeros.T, bits).T.contiguous(),
    }
    return tensors | ({"weight_g_idx": torch.tensor(index, dtype=torch.int32)} if mixed else {}), numbers


def fp8(matrix: Tensor, block: tuple[int, int], name: str = "weight_scale_inv", shape: Sequence[int] | None = None) -> Quantised:
    """Floats of 8 bits, with a scale for each block."""
    rows, columns = matrix.shape
    down, right = torch.arange(rows) // block[0], torch.arange(columns) // block[1]
    scale = torch.zeros(int(down.max()) + 1, int(right.max()) + 1)
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            scale[row, column] = matrix[down == row][:, right == column].abs().max() / 448
    values = (matrix / scale[down][:, right]).to(torch.float8_e4m3fn)
    numbers = values.float() * scale[down][:, right]
    return {"weight": values, name: scale if shape is None else scale.reshape(list(shape))}, numbers


def mlx(matrix: Tensor, bits: int, size: int) -> Quantised:
    rows, columns = matrix.shape
    groups = matrix.reshape(rows, -1, size)
    bias = groups.amin(-1, keepdim=True).half().float()
    scale = ((groups.amax(-1, keepdim=True) - bias) / (2**bits - 1)).half().float()
    integers = ((groups - bias) / scale).round().clamp(0, 2**bits - 1)
    numbers = (integers * scale + bias).reshape(rows, columns)
    packed = words(integers.reshape(rows, columns).numpy().astype(np.int64), bits).numpy().view(np.uint32)
    return {"weight": torch.from_numpy(packed), "scales": scale[..., 0].half(), "biases": bias[..., 0].half()}, numbers
