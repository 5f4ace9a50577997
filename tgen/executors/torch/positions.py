"""Positions are the only geometry: masks, rotations and biases as functions of query and key positions.

A position of -1 marks padding. A `Frame` is the geometry between some queries and the keys that they may see; it computes each mask once,
however many layers share it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors import frequencies
from tgen.executors.torch.norms import make_norm
from tgen.spec.positions import Alibi, PairScaling, QueryGrowth, RelativeBias, RopeSpec
from tgen.spec.records import RelativeVectors

Bias = Callable[[Tensor], Tensor]


class Frame:
    """The geometry between n queries and m keys, which their positions describe.

    `bias` turns distances [batch, n, m] (key minus query) into numbers added to the scores, [batch, heads, n, m].
    """

    def __init__(
        self,
        queries: Tensor,
        keys: Tensor,
        dtype: torch.dtype,
        bias: Bias | None = None,
        *,
        causal: bool = True,
        plain: bool = False,
    ) -> None:
        """`queries` [batch, n] and `keys` [batch, m] are integer positions.

        `plain` promises that none of them is padding, that the keys are 0..m-1, and that causal queries are the last n of these positions.
        """
        self.queries = queries
        self.keys = keys
        self.dtype = dtype
        self.bias = bias
        self.causal = causal
        self._plain = plain and bias is None
        self._masks: dict[int | None, Tensor | None] = {}

    def biased(self, bias: Bias) -> Frame:
        """The same geometry with another bias."""
        return Frame(self.queries, self.keys, self.dtype, bias, causal=self.causal)

    def causal_only(self, window: int | None) -> bool:
        """Whether the causal mask that torch's kernel has built in suffices."""
        n, m = self.queries.shape[-1], self.keys.shape[-1]
        return self.causal and self._plain and n == m and (window is None or n <= window)

    def mask(self, window: int | None) -> Tensor | None:
        """The numbers added to the scores, [batch, 1 or heads, n, m]: -inf hides a key from a query. None if every query sees every key."""
        if window not in self._masks:
            self._masks[window] = self._build_mask(window)
        return self._masks[window]

    def _sees_all(self, window: int | None) -> bool:
        n, m = self.queries.shape[-1], self.keys.shape[-1]
        if not self.causal:
            return self._plain and (window is None or m <= window)
        return self._plain and n == 1 and (window is None or m <= window)

    def _build_mask(self, window: int | None) -> Tensor | None:
        if self._sees_all(window):
            return None
        queries, keys = self.queries.unsqueeze(-1), self.keys.unsqueeze(-2)
        visible = (keys >= 0).expand(-1, queries.shape[1], -1)
        if self.causal:
            visible = visible & (keys <= queries)
        if window is not None:
            visible = visible & (keys > queries - window) & (keys < queries + window)
        # A padding query sees everything: softmax over an empty row is NaN, and the result of padding is not used.
        visible = visible | (queries < 0)
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill_(~visible, -math.inf).unsqueeze(1)
        return mask if self.bias is None else mask + self.bias(keys - queries).to(self.dtype)


class Rotations:
    """Cosines and sines for the positions of one forward pass; each kind of rotation is computed once."""

    def __init__(self, positions: Tensor, dtype: torch.dtype) -> None:
        """`positions` are [batch, n]; `dtype` is the number format of the pass."""
        self._positions = positions
        self._dtype = dtype
        self._known: dict[tuple[RopeSpec, torch.dtype], tuple[Tensor, Tensor]] = {}

    def of(self, rope: RopeSpec, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines of each position's angles, both [batch, 1, n, rope.dim], in `dtype` or the number format of the pass."""
        key = (rope, dtype or self._dtype)
        if key not in self._known:
            angles = self._positions.unsqueeze(-1).float() * rope_frequencies(rope, self._positions.device)
            angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
            amplitude = rope.scaling.amplitude if isinstance(rope.scaling, PairScaling) else 1.0
            self._known[key] = (angles.cos() * amplitude).to(key[1]), (angles.sin() * amplitude).to(key[1])
        return self._known[key]


def rope_frequencies(rope: RopeSpec, device: torch.device) -> Tensor:
    """Radians per position of each rotated pair, [rope.dim / 2], float32."""
    return _kept(frequencies.rope_frequencies, rope, device)


def _kept(compute: Callable[..., Any], of: Any, device: torch.device) -> Tensor:
    """The tensor `compute(of)` on the device, computed once: a pass that is recorded as a graph cannot copy from the host."""
    return _computed(compute, of, device)


@functools.cache
def _computed(compute: Callable[..., Any], of: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(compute(of)).to(device)


def prepare_compiler() -> None:
    """Have torch.compile take tensors that are kept as constants.

    It cannot trace NumPy, so without this it would break its graph in every layer. This imports the compiler, for which nearly no process
    has a use, and which doubles the time that a process takes to start.
    """
    torch.compiler.assume_constant_result(_kept)  # type: ignore[no-untyped-call]


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (i, i + dim/2) of a head by its position's angle; numbers beyond dim stay. x is [batch, heads, n, head_dim]."""
    cosine, sine = rotation
    dim = cosine.shape[-1]
    turned, kept = x[..., :dim], x[..., dim:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cosine + torch.cat((-second, first), dim=-1) * sine
    return torch.cat((turned, kept), dim=-1) if kept.shape[-1] else turned


def query_growth(spec: QueryGrowth, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """The factor of each query, [batch, 1, n, 1] for positions [batch, n]."""
    spans = torch.floor(positions.clamp(min=0) / spec.span)
    return (1 + spec.beta * torch.log1p(spans)).to(dtype)[:, None, :, None]


def alibi_slopes(heads: int, device: torch.device) -> Tensor:
    """A slope per head, [heads]."""
    return _kept(frequencies.alibi_slopes, heads, device)


def relative_buckets(distances: Tensor, buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """T5's bucket for each distance (key minus query): each near distance has its own, far ones share buckets on a logarithmic scale."""
    first = torch.zeros_like(distances)
    if bidirectional:
        buckets //= 2
        first = (distances > 0).long() * buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    exact = buckets // 2
    far = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return first + torch.where(distances < exact, distances, (exact + far.long()).clamp(max=buckets - 1))


class Distances(nn.Module):
    """Numbers added to attention scores, by distance: ALiBi's slopes or T5's learned buckets."""

    def __init__(self, spec: Alibi | RelativeBias) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.buckets, spec.heads)) if isinstance(spec, RelativeBias) else None

    def forward(self, distances: Tensor) -> Tensor:
        """The numbers [batch, heads, n, m] for distances (key minus query) [batch, n, m]."""
        if isinstance(self.spec, RelativeBias) and self.weight is not None:
            buckets = relative_buckets(distances, self.spec.buckets, self.spec.max_distance, self.spec.bidirectional)
            return F.embedding(buckets, self.weight).permute(0, 3, 1, 2)
        return distances.unsqueeze(1) * alibi_slopes(self.spec.heads, distances.device)[:, None, None]


class RelativeTable(nn.Module):
    """A vector for each relative position, or for a range of them, which all layers of a stack share."""

    def __init__(self, spec: RelativeVectors, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(2 * spec.span, width))
        self.norm = make_norm(spec.norm, width) if spec.norm else None

    def forward(self) -> Tensor:
        """All vectors, [2 * span, width]."""
        return self.weight if self.norm is None else self.norm(self.weight)

    def rows(self, distances: Tensor) -> Tensor:
        """The row of the table for each distance (key minus query)."""
        span, back = self.spec.span, -distances
        if self.spec.max_distance is not None:
            exact = span // 2
            far = torch.log(back.abs().clamp(min=1) / exact) / math.log((self.spec.max_distance - 1) / exact) * (exact - 1)
            back = torch.where(back.abs() <= exact, back, (torch.ceil(far).long() + exact) * back.sign())
        return (back + span).clamp(0, 2 * span - 1)


def sinusoids(positions: Tensor, width: int, *, to_last: bool = False) -> Tensor:
    """Sinusoidal position vectors [batch, n, width]: sines in the first half, cosines in the second (Marian's order).

    An odd width has one sine more. `PositionTable` says what `to_last` means.
    """
    steps = torch.arange(0, width, 2, device=positions.device).float()
    exponents = steps / (2 * max(len(steps) - 1, 1) if to_last else width)
    angles = positions.unsqueeze(-1).float() / 10000.0**exponents
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., :width]
