"""Positions are the only geometry: masks, rotations and biases as functions of query and key positions.

A position of -1 marks padding or an empty cache slot. A `Frame` holds the positions of one forward pass and computes each mask and
rotation once, however many layers share it. Knows neither weights nor the cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tgen.spec import Alibi, LinearScaling, Llama3Scaling, RopeSpec


class Frame:
    """The geometry of one forward pass.

    `queries` [batch, n] and `keys` [batch, m] are integer positions. `simple` says that both are the same 0..n-1 without padding, so
    that plain causal attention needs no mask; `latest` that a lone, last query sees every key.
    """

    def __init__(
        self, queries: Tensor, keys: Tensor, dtype: torch.dtype, bias: Alibi | None = None, *, simple: bool = False, latest: bool = False
    ) -> None:
        self.queries = queries
        self.keys = keys
        self.dtype = dtype
        self.bias = bias
        self.simple = simple and bias is None
        self.latest = latest and bias is None
        self._masks: dict[int | None, Tensor | None] = {}
        self._rotations: dict[RopeSpec, tuple[Tensor, Tensor]] = {}

    def causal_only(self, window: int | None) -> bool:
        """Whether the kernel's own causal mask says all there is to say."""
        return self.simple and (window is None or self.queries.shape[-1] <= window)

    def mask(self, window: int | None) -> Tensor | None:
        """What is added to the scores: [batch, 1 or heads, n, m], -inf where a query may not look; None where it may look anywhere."""
        if window not in self._masks:
            self._masks[window] = self._build_mask(window)
        return self._masks[window]

    def rotation(self, rope: RopeSpec) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each query's angles, each [batch, 1, n, rope.dim]."""
        if rope not in self._rotations:
            angles = self.queries.unsqueeze(-1).float() * rope_frequencies(rope, self.queries.device)
            angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
            self._rotations[rope] = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        return self._rotations[rope]

    def _build_mask(self, window: int | None) -> Tensor | None:
        if self.causal_only(window) or (self.latest and (window is None or self.keys.shape[-1] <= window)):
            return None
        queries, keys = self.queries.unsqueeze(-1), self.keys.unsqueeze(-2)
        visible = (keys >= 0) & (keys <= queries)
        if window is not None:
            visible &= keys > queries - window
        # A padding query sees everything: softmax over an empty row is NaN, and nobody reads this one.
        visible |= queries < 0
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill_(~visible, -math.inf).unsqueeze(1)
        if self.bias is not None:
            distance = (keys - queries).unsqueeze(1).to(self.dtype)
            mask = mask + distance * alibi_slopes(self.bias.heads, mask.device, self.dtype)[:, None, None]
        return mask


def rope_frequencies(rope: RopeSpec, device: torch.device) -> Tensor:
    """Radians per position of each rotated pair, [rope.dim / 2], float32."""
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.int64, device=device).float() / rope.dim
    frequencies = 1.0 / (rope.theta**exponents)
    match rope.scaling:
        case None:
            return frequencies
        case LinearScaling(factor):
            return frequencies / factor
        case Llama3Scaling(factor, low, high, original_context):
            wavelengths = 2 * math.pi / frequencies
            blend = ((original_context / wavelengths - low) / (high - low)).clamp(0, 1)
            return (1 - blend) * frequencies / factor + blend * frequencies


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + dim/2) of a head by its position's angle; components beyond dim stay. x is [batch, heads, n, head_dim]."""
    cosine, sine = rotation
    dim = cosine.shape[-1]
    turned, kept = x[..., :dim], x[..., dim:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cosine + torch.cat((-second, first), dim=-1) * sine
    return torch.cat((turned, kept), dim=-1) if kept.shape[-1] else turned


def alibi_slopes(heads: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A slope per head, [heads]: powers of 2^(-8/n), and in between for head counts that are no power of two."""
    closest = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / closest) for i in range(closest)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / closest) for i in range(heads - closest)]
    return torch.tensor(slopes, device=device, dtype=dtype)
