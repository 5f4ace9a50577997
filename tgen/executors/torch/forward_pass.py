"""One forward pass: the ids of many rows side by side in one sequence, each row with its own geometry and cache.

Matrices and norms work on all ids at once, so that every weight is read once; only mixers treat each row by itself. So rows of different
lengths need no padding, and one pass can read the prompt of one row and the next token of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby

import torch
from torch import Tensor

from tgen.executors.torch.cache import Row, Source
from tgen.executors.torch.positions import Bias, Distances, Frame, RelativeTable, Rotations

# Writes to a layer's cache what attention keeps of each row's new position, and returns what the cache holds of all positions.
Keep = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Part:
    """One row, or a whole batch of equal rows: its geometry, and the row whose cache it extends, if there is one."""

    frame: Frame
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One source, the columns of the rows that attend to it, and the geometry between those queries and its keys."""

    columns: slice
    frame: Frame
    source: Source


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Positions [batch, n] of all ids, and the keys that each id attends to.

    `counts` has each part's number of ids; None means one batch of rows of equal length. Such a batch has `keep` if it continues rows.
    `dtype` is the model's number format. `relative` and `block_bias` are the stack's table of relative vectors and its bias for blocks, if
    it has these. `shared` maps the number of each cache that several layers read to the keys and values of every part.
    """

    positions: Tensor
    rotations: Rotations
    dtype: torch.dtype
    parts: list[Part]
    looks: list[Look]
    counts: list[int] | None = None
    relative: RelativeTable | None = None
    block_bias: Distances | None = None
    keep: Keep | None = None
    shared: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


def whole_pass(
    shape: tuple[int, int], positions: Tensor | None, source: Source | None, like: Tensor, bias: Bias | None, *, causal: bool
) -> ForwardPass:
    """A batch [batch, n] that is read at once without a cache. `like` gives the device and the number format.

    `positions` mark padding by -1; None means 0..n-1 in every row. Every query sees every position of the source except padding.
    """
    plain = positions is None
    if positions is None:
        positions = torch.arange(shape[1], device=like.device).expand(shape[0], -1)
    parts = [Part(Frame(positions, positions, like.dtype, bias, causal=causal, plain=plain))]
    looks = [] if source is None else [_look(slice(None), positions, source, like)]
    return ForwardPass(positions, Rotations(positions, like.dtype), like.dtype, parts, looks)


def step_pass(positions: Tensor, capacity: int, keep: Keep, like: Tensor, bias: Bias | None) -> ForwardPass:
    """One more id of each row, at positions [rows, 1], among `capacity` places for keys; places beyond a row's position are masked.

    Nothing here depends on the numbers in `positions`, so the pass can be recorded once and replayed for other positions.
    """
    keys = torch.arange(capacity, device=like.device)[None]
    parts = [Part(Frame(positions, keys, like.dtype, bias))]
    return ForwardPass(positions, Rotations(positions, like.dtype), like.dtype, parts, [], keep=keep)


def packed_pass(rows: Sequence[Row | None], counts: Sequence[int], like: Tensor, bias: Bias | None, *, causal: bool) -> ForwardPass:
    """Rows packed into one sequence [1, total]; row r reads counts[r] more ids. None in `rows` is a text that is read without a cache."""
    starts = [0 if row is None else row.length for row in rows]
    places = [place for start, count in zip(starts, counts, strict=True) for place in range(start, start + count)]
    positions = torch.tensor([places], device=like.device)
    edges = [0, *accumulate(counts)]
    frames: dict[tuple[int, int], Frame] = {}  # rows of equal length, such as beams, share a mask
    for start, count, edge in zip(starts, counts, edges, strict=False):
        if (start, count) not in frames:
            keys = torch.arange(start + count, device=like.device)[None]
            frames[start, count] = Frame(positions[:, edge : edge + count], keys, like.dtype, bias, causal=causal, plain=True)
    parts = [Part(frames[key], row) for key, row in zip(zip(starts, counts, strict=True), rows, strict=True)]
    looks = []
    for source, group in groupby(range(len(rows)), key=lambda number: _source(rows[number])):
        numbers = list(group)
        if source is not None:
            columns = slice(edges[numbers[0]], edges[numbers[-1] + 1])
            looks.append(_look(columns, positions[:, columns], source, like))
    return ForwardPass(positions, Rotations(positions, like.dtype), like.dtype, parts, looks, list(counts))


def _source(row: Row | None) -> Source | None:
    return None if row is None else row.source


def _look(columns: slice, queries: Tensor, source: Source, like: Tensor) -> Look:
    plain = source.positions is None
    keys = torch.arange(source.length, device=like.device)[None] if source.positions is None else source.positions
    return Look(columns, Frame(queries, keys, like.dtype, causal=False, plain=plain), source)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts of a pass, each [batch, heads, n, head_dim], side by side as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=2)
