"""Computes tables that a model needs once: rotations, biases by distance, sinusoids, and the constants of an activation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tgen.executors.frequencies import Floats, alibi_slopes, rope_frequencies
from tgen.spec.positions import Alibi, LinearScaling, PairScaling, RelativeBias, RopeSpec

XIELU = ("alpha_p", "alpha_n", "beta")


@np.errstate(all="ignore")  # as in `rope_frequencies`
def rotations(rope: RopeSpec, positions: int, turns: Callable[[Floats], tuple[Floats, Floats]] | None = None) -> tuple[Floats, Floats]:
    """Cosines and sines of the first positions, [positions, dim / 2].

    `turns` gives the cosines and sines of angles. With it, every bit is llama.cpp's, which computes each angle from the one before it.
    """
    places = np.arange(positions, dtype=np.float32)[:, None]
    amplitude = np.float32(rope.scaling.amplitude if isinstance(rope.scaling, PairScaling) else 1.0)
    if turns is not None:
        cosine, sine = turns(_stepwise(rope, places))
    else:
        angles = places * rope_frequencies(rope)
        cosine, sine = np.cos(angles), np.sin(angles, out=angles)  # in place: for a long context, each takes megabytes
    cosine *= amplitude
    sine *= amplitude
    return cosine, sine


def _stepwise(rope: RopeSpec, places: Floats) -> Floats:
    """The angles [positions, dim / 2] at `places` [positions, 1]. Each pair's angle is that of the pair before times theta^(-2 / dim).

    All angles are then scaled as the spec says.
    """
    factor = np.float32(np.float32(rope.theta) ** np.float32(-2 / rope.dim))
    steps = np.full((len(places), rope.dim // 2), factor)
    steps[:, :1] = places
    angles = np.multiply.accumulate(steps, axis=1)
    match rope.scaling:
        case None:
            return angles
        case LinearScaling(factor_of_all):
            return angles * np.float32(1 / factor_of_all)
        case PairScaling(divisors):
            return np.divide(angles, np.array(divisors, np.float32), dtype=np.float32)
        case _:
            return places * rope_frequencies(rope)


def distance_table(spec: Alibi | RelativeBias, weight: Floats | None, reach: int) -> Floats:
    """The numbers added to scores, [heads, 2 * reach], at the index key - query + reach. `weight` is [buckets, heads]."""
    distances = np.arange(-reach, reach)
    if isinstance(spec, RelativeBias):
        assert weight is not None
        return np.ascontiguousarray(weight[_buckets(distances, spec)].T)
    return alibi_slopes(spec.heads)[:, None] * distances.astype(np.float32)


def _buckets(distances: npt.NDArray[np.int64], spec: RelativeBias) -> npt.NDArray[np.int64]:
    """T5's bucket for each distance (key minus query): each near distance has its own, far ones share buckets on a logarithmic scale."""
    buckets, first = spec.buckets, np.zeros_like(distances)
    if spec.bidirectional:
        buckets //= 2
        first = (distances > 0) * buckets
        distances = np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    exact = buckets // 2
    ratios = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(spec.max_distance / exact))
    far = (ratios * np.float32(buckets - exact)).astype(np.int64)
    return first + np.where(distances < exact, distances, np.minimum(exact + far, buckets - 1))


def sinusoids(positions: int, width: int, *, to_last: bool = False) -> Floats:
    """Sinusoidal position vectors [positions, width]: sines in the first half, cosines in the second (Marian's order).

    An odd width has one sine more. `PositionTable` says what `to_last` means.
    """
    steps = np.arange(0, width, 2, dtype=np.float32)
    exponents = steps / np.float32(2 * max(len(steps) - 1, 1) if to_last else width)
    angles = np.arange(positions, dtype=np.float32)[:, None] / np.float32(10000.0) ** exponents
    return np.ascontiguousarray(np.concatenate((np.sin(angles), np.cos(angles)), axis=-1)[:, :width])


def xielu_numbers(*parameters: Floats | None) -> Floats:
    """The constants of xIELU (arXiv:2411.13010) from its parameters: softplus(alpha_p), beta + softplus(alpha_n), and beta."""
    rising, falling, beta = (float(parameter[0]) for parameter in parameters if parameter is not None)
    return np.array([np.logaddexp(0, rising), beta + np.logaddexp(0, falling), beta], np.float32)
