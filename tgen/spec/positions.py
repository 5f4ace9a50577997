"""How positions enter a transformer, as data: rotations, tables, and numbers for distances. Knows no tensor framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Every rotation slowed down by one factor (position interpolation, arXiv:2306.15595)."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Slow rotations slowed down further, fast ones kept, a blend between (Llama 3.1)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class PairScaling:
    """Each rotation slowed down by a factor of its own: pair i turns theta^(-2i/dim) / divisors[i] radians per position.

    An infinite divisor stops a pair, a negative one turns it the other way. Cosines and sines are both multiplied by `amplitude`.
    YaRN (arXiv:2309.00071), LongRoPE (arXiv:2402.13753) and proportional rotations are such lists.
    """

    divisors: tuple[float, ...]
    amplitude: float = 1.0


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding over the first `dim` components of each head (arXiv:2104.09864).

    Pair i holds components i and i + dim/2. It turns by position * theta^(-2i/dim) radians, unless `scaling` says otherwise.
    """

    dim: int
    theta: float
    scaling: LinearScaling | Llama3Scaling | PairScaling | None = None


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Position vectors that are added to the embeddings: learned, or sines and cosines (arXiv:1706.03762, section 3.5).

    Position p has row p + `offset` of the `length` rows, because some families keep the first rows for padding. Of n sines, the i-th
    turns by 10000^(-i/n) radians per position, or where `to_last` by 10000^(-i/(n-1)), so that the last one turns by 1/10000.
    """

    kind: Literal["learned", "sinusoid"]
    length: int
    offset: int = 0
    to_last: bool = False


@dataclass(frozen=True, slots=True)
class Alibi:
    """A linear penalty on distance added to the scores, one slope per head (arXiv:2108.12409).

    For n heads, a power of two, head i of 1..n has the slope 2^(-8 * i / n). For other n, the first slopes are those of the next smaller
    power of two, and the rest are every second slope of the next larger one.
    """

    heads: int


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """A learned number per head and bucket of distances added to the scores (arXiv:1910.10683, section 2.1).

    Half of the buckets hold one distance each, the others logarithmic ranges up to `max_distance`. `bidirectional` keeps separate buckets
    for keys before and after the query.
    """

    heads: int
    buckets: int
    max_distance: int
    bidirectional: bool


@dataclass(frozen=True, slots=True)
class QueryGrowth:
    """Queries at position p are multiplied by 1 + beta * ln(1 + floor(p / span)), in the model's number format (Llama 4, Ministral 3)."""

    beta: float
    span: int
