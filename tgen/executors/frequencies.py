"""What every executor computes from a spec alone: how far a rotated pair turns, and how steep ALiBi is. In NumPy, for any framework."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tgen.spec.positions import LinearScaling, Llama3Scaling, PairScaling, RopeSpec

Floats = npt.NDArray[np.float32]


@np.errstate(all="ignore")  # a base beyond float32 counts as infinite; NaN in the logits is an error of its own
def rope_frequencies(rope: RopeSpec) -> Floats:
    """Radians per position of each rotated pair, [dim / 2]."""
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
    """A slope per head, [heads]: powers of 2^(-8/n) for n heads; if n is no power of two, some slopes lie between those."""
    closest = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / closest) for i in range(closest)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / closest) for i in range(heads - closest)]
    return np.array(slopes, np.float32)
