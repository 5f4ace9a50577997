"""Selecting the highest of many values without sorting them all.

A vocabulary has 150,000 entries: sorting them takes 10 ms, reading them once 10 us. Each function here reads them a few times and sorts
only the few that are near the border. The result is the one a stable sort would give: among equals, lower places come first.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tgen.arrays import Ids, Logits, Values
from tgen.sampling.logits import BLOCK, group_maxima, places_from

# The largest size of a group whose maximum is taken.
GROUP = 128

# `fewest` sorts up to SORTED values; it first divides more values than that into BUCKETS buckets.
SORTED, BUCKETS = 1024, 4096

# Between these differences of the highest and the lowest value, float32 can compute the buckets.
NARROW, WIDE = 1e-30, 1e30


def highest(values: Logits | Values, count: int) -> Ids:
    """The places of the `count` highest values, in ascending order."""
    size = len(values)
    if count >= size:
        return np.arange(size)
    if count < 1:
        return np.arange(0)
    # Group maxima are values too, so at least `count` values reach the count-th highest maximum. Fewer than `count` groups have a
    # higher one, so few values are above it.
    groups = size // max(1, min(GROUP, size // (16 * count)))
    maxima = group_maxima(values, groups)
    maxima.partition(groups - count)
    places = places_from(values, maxima[groups - count])
    if len(places) == count:
        return places
    near, border = values.take(places), maxima[groups - count]
    above = near[near > border]
    if len(above) >= count:
        above.partition(len(above) - count)
        border = above[len(above) - count]
    return places.take(_down_to(near, border, count))


def ranked(values: Logits | Values, count: int) -> Ids:
    """The places of the `count` highest values, highest first."""
    places = highest(values, count)
    return places[np.argsort(-values[places], kind="stable")]


def fewest(values: Logits | Values, weights: Values, target: float) -> tuple[Ids, float]:
    """The places, in ascending order, of the fewest highest values whose weights sum to `target` or more; at least one.

    The second result is how far the target may move, up or down, before the first one changes. Values are put into buckets by their
    size; the bucket in which the sum reaches the target is put into finer buckets, until it is small enough to be sorted.
    """
    near, near_weights, missing, taken = values, weights, target, 0
    if len(near) > SORTED and near.min() == -np.inf:  # a masked token, which has no weight
        unmasked = np.flatnonzero(near > -np.inf)
        near, near_weights = near[unmasked], near_weights[unmasked]
    while len(near) > SORTED and (high := float(near.max())) > (low := float(near.min())):
        # Rounding keeps the order: a higher value is never in a later bucket. The highest and the lowest are in different ones.
        scaled = high - (near if NARROW < high - low < WIDE else near.astype(np.float64))
        scaled *= BUCKETS / (high - low)
        buckets = scaled.astype(np.int32)
        sums = np.bincount(buckets, weights=near_weights).astype(np.float64, copy=False)
        reached = crossing(sums, missing, "left")
        missing -= float(sums[:reached].sum())
        taken += int(np.count_nonzero(buckets < reached))
        inside = np.flatnonzero(buckets == reached)
        near, near_weights = near[inside], near_weights[inside]
    if len(near) <= SORTED:
        order = (-near).argsort(kind="stable")
        near, near_weights = near.take(order), near_weights.take(order)
    last = crossing(near_weights, missing, "left")
    before = float(np.add.reduce(near_weights[:last]))
    down = missing - before if taken + last else np.inf
    if len(near) == len(values) <= SORTED:
        order = order[: last + 1]
        order.sort()
    else:
        order = _down_to(values, near[last], taken + last + 1)
    return order, min(before + float(near_weights[last]) - missing, down)


def crossing(weights: Values, target: float, side: Literal["left", "right"]) -> int:
    """The first place where the running sum of the weights reaches `target` ("left") or exceeds it ("right").

    A target at or beyond the whole sum, as rounding may give, counts as just below it.
    """
    if len(weights) > 4 * BLOCK:  # the sums of blocks first: a running sum is slow, since each addition waits for the one before
        sums = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK))
        block = crossing(sums, target, side)
        start = block * BLOCK
        return start + crossing(weights[start : start + BLOCK], target - float(sums[:block].sum()), side)
    running = weights.cumsum()
    return int(running.searchsorted(max(0.0, min(target, math.nextafter(running[-1], 0))), side))


def _down_to(values: Logits | Values, border: float | np.floating, count: int) -> Ids:
    """The places of the `count` highest values, of which `border` is the lowest."""
    kept = values >= border
    surplus = int(np.count_nonzero(kept)) - count
    if surplus:
        first = (values == border).nonzero()[0][-surplus]  # from here on, no more equals are kept
        kept[first:] = values[first:] > border
    return kept.nonzero()[0]
