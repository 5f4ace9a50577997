"""Computes in NumPy what every executor needs from a spec alone: the frequencies of rotary position embeddings, and ALiBi's slopes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tgen.spec.positions import LinearScaling, Llama3Scaling, PairScaling, RopeSpec

Floats = npt.NDArray[np.float32]


@np.errstate(all="ignore")  # a base beyond float32 counts as infinite; whoever reads the logits reports NaN
def rope_frequencies(rope: RopeSpec) -> Floats:
    """Radians per position of each rotated pair, [dim / 2] (RoFormer, arXiv:2104.09864)."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    frequencies = (np.float32(1.0) / np.float32(rope.theta) ** exponents).astype(np.float32)
    match rope.scaling:
        case None:
            return frequencies
        case LinearScaling(factor):
            return frequencies / np.float32(factor)
        case Llama3Scaling(factor, low, high, original_context):
            wavelengths = np.float32(2 * math.pi) / frequencies
            blend = np.clip((original_context / wavelengths - low) / (high - low), 0, 1).astype(np.float32)
            return ((1 - blend) * frequencies / np.float32(factor) + blend * frequencies).astype(np.float32)
        case PairScaling(divisors):
            return np.divide(frequencies, np.array(divisors, np.float32), dtype=np.float32)


def alibi_slopes(heads: int) -> Floats:
    """A slope per head, [heads] (arXiv:2108.12409): the first n powers of 2^(-8/n), where n is the largest power of two up to `heads`.

    Further heads get every second slope of a model with 2n heads, from the first on.
    """
    closest = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / closest) for i in range(closest)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / closest) for i in range(heads - closest)]
    return np.array(slopes, np.float32)
