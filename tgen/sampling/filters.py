"""The filters between the scores and the draw: each takes the candidates and keeps some of them, the likeliest mostly among them.

A new filter is a function here, an entry in FILTERS and a name in SAMPLERS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tgen.options import GenerationOptions
from tgen.sampling.candidates import Candidates
from tgen.sampling.mirostat import Mirostat
from tgen.sampling.nucleus import nucleus
from tgen.sampling.selection import fewest, highest

# Float32 logits make the probabilities inexact: without this margin, eight of ten equal tokens would not always sum to 0.8.
ROUNDING = 1e-6


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Exactly the k highest; among equals the lower ids. 0 is off."""
    return candidates if k == 0 else candidates.keep(highest(candidates.logits, k))


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of highest-probability tokens whose sum reaches p, the crossing one included (arXiv:1904.09751). 1 is off."""
    return candidates if p >= 1 else candidates.keep(nucleus(candidates, max(p - ROUNDING, 0.0)))


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Tokens at least p times as likely as the likeliest one (arXiv:2407.01082). 0 is off."""
    return candidates if p == 0 else candidates.keep_likelier(p * (1 - ROUNDING))


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Tokens whose logit is at most n standard deviations of all logits below the highest (arXiv:2411.07641). 0 is off.

    Temperature scales both sides, so it changes nothing here. A token that a rule forbids has no logit, and does not count.
    """
    if n == 0:
        return candidates
    logits = candidates.logits
    finite = logits if logits.min() > -np.inf else logits[np.flatnonzero(logits > -np.inf)]
    border = candidates.highest - n * float(finite.std(dtype=np.float64))
    return candidates.keep(np.flatnonzero(logits >= min(border, candidates.highest)))


def typical_p(candidates: Candidates, p: float) -> Candidates:
    """The fewest tokens whose probabilities sum to p, those first whose surprise is nearest to the entropy (arXiv:2202.00666). 1 is off.

    Among tokens equally near, lower ids come first. The crossing token is one of them. The likeliest token may be cut.
    """
    if p >= 1:
        return candidates
    weights, total = candidates.weights, float(np.add.reduce(candidates.weights))
    # A token's surprise is log(total) minus its exponent, so the mean exponent is as far from the token's as the entropy from its surprise.
    distance = candidates.exponents
    masked = distance == -np.inf if candidates.logits.min() == -np.inf else None
    if masked is not None:
        distance[masked] = 0.0  # times no weight
    distance -= float(np.add.reduce(weights * distance)) / total  # `@` would start threads
    np.abs(distance, out=distance)
    if masked is not None:
        distance[masked] = np.inf
    return candidates.keep(fewest(np.negative(distance, out=distance), weights, max(p - ROUNDING, 0.0) * total)[0])


def xtc(candidates: Candidates, threshold: float) -> Candidates:
    """Without the tokens that have at least this probability, but with the least likely of them ("exclude top choices").

    There is no paper; the source is https://github.com/oobabooga/text-generation-webui/pull/6335. Of several least likely tokens the one
    with the highest id stays.
    """
    shares = candidates.probabilities()
    top = (shares >= threshold * (1 - ROUNDING)) & (shares > 0)
    if np.count_nonzero(top) < 2:
        return candidates
    places = np.flatnonzero(top)
    top[places[len(places) - 1 - int(np.argmin(shares[places][::-1]))]] = False
    return candidates.keep(np.flatnonzero(~top))


# The filters that an option of the same name steers; temperature scales, and XTC has two options.
FILTERS: dict[str, Callable[[Candidates, float], Candidates]] = {
    "temperature": Candidates.at_temperature,
    "top_n_sigma": top_n_sigma,
    "top_k": lambda candidates, k: top_k(candidates, int(k)),
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
}
# Filters that few people use: they are a stage only where they are on, so that a table of the stages stays narrow.
RARE = {"top_n_sigma": 0, "typical_p": 1}


def filtered(
    first: Candidates, options: GenerationOptions, *, excluding: bool = False, mirostat: Mirostat | None = None
) -> list[tuple[str, Candidates]]:
    """The candidates after each filter, with its name, in the order that the options give; the draw is from the last.

    `excluding` says that XTC runs in this step. Mirostat takes the place of every filter but temperature.
    """
    stages: list[tuple[str, Candidates]] = []
    candidates = first
    for name in options.samplers:
        if name == "xtc":
            if not excluding or mirostat is not None:
                continue
            candidates = xtc(candidates, options.xtc_threshold)
        else:
            value = getattr(options, name)
            if RARE.get(name) == value or (mirostat is not None and name != "temperature"):
                continue
            candidates = FILTERS[name](candidates, value)
        stages.append((name, candidates))
    if mirostat is not None:
        stages.append(("mirostat", mirostat.keep(candidates)))
    return stages or [("all", first)]
