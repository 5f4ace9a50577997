"""The filters between the scores and the draw: each keeps some of the candidates, mostly the likeliest.

A new filter is a function here, an entry in FILTERS and a name in SAMPLERS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tgen.options import GenerationOptions
from tgen.sampling.candidates import Candidates
from tgen.sampling.mirostat import Mirostat
from tgen.sampling.nucleus import likely_nucleus, nucleus, typical
from tgen.sampling.selection import highest

# Float32 logits make the probabilities inexact: without this margin, eight of ten equal tokens would not always sum to 0.8.
ROUNDING = 1e-6


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Exactly the k highest; among equals the lower ids. 0 is off."""
    if k == 0:
        return candidates
    places = highest(candidates.scores, k)
    return candidates.keep(places[candidates.scores.take(places) > -np.inf] if candidates.cut else places)


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of highest-probability tokens whose sum reaches p, the crossing one included (arXiv:1904.09751). 1 is off."""
    return candidates if p >= 1 else nucleus(candidates, max(p - ROUNDING, 0.0))


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Tokens at least p times as likely as the likeliest one (arXiv:2407.01082). 0 is off."""
    return candidates if p == 0 else candidates.keep_likelier(p * (1 - ROUNDING))


def top_p_and_min_p(candidates: Candidates, top: float, least: float) -> Candidates | None:
    """The same as top-p and then min-p; None if doing both at once saves no time."""
    if top >= 1 or least == 0:
        return None
    return likely_nucleus(candidates, max(top - ROUNDING, 0.0), least * (1 - ROUNDING))


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Tokens whose logit is at most n standard deviations of all logits below the highest (arXiv:2411.07641). 0 is off.

    Temperature scales both sides, so it changes nothing here. A token that a rule forbids has no logit, and does not count.
    """
    if n == 0:
        return candidates
    scores = candidates.scores
    finite = scores if scores.min() > -np.inf else scores[np.flatnonzero(scores > -np.inf)]
    border = candidates.highest - n * float(finite.std(dtype=np.float64))
    return candidates.keep_from(min(border, candidates.highest))


def typical_p(candidates: Candidates, p: float) -> Candidates:
    """The fewest tokens whose probabilities sum to p, those first whose surprise is nearest to the entropy (arXiv:2202.00666). 1 is off.

    Among tokens equally near, lower ids come first. The token that crosses p is kept. The likeliest token may be cut.
    """
    return candidates if p >= 1 else typical(candidates, max(p - ROUNDING, 0.0))


def xtc(candidates: Candidates, threshold: float) -> Candidates:
    """Drops all tokens that have at least this probability, except the least likely of them ("exclude top choices").

    There is no paper; the source is https://github.com/oobabooga/text-generation-webui/pull/6335. Of several least likely tokens the one
    with the highest id stays.
    """
    top, weights = candidates.at_least(threshold * (1 - ROUNDING))
    if len(top) < 2:
        return candidates
    kept = np.ones(len(candidates.entries), np.bool_)
    kept[top] = False
    kept[top[len(top) - 1 - int(np.argmin(weights[::-1]))]] = True
    # A token that a rule forbids stays a candidate with probability 0.
    return candidates.keep_where(kept) if candidates.cut or candidates.scores.min() > -np.inf else candidates.keep(kept.nonzero()[0])


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
    first: Candidates, options: GenerationOptions, *, excluding: bool = False, mirostat: Mirostat | None = None, every: bool = False
) -> list[tuple[str, Candidates]]:
    """The candidates after each filter, with its name, in the order that the options give; the draw is from the last.

    `excluding` says that XTC runs in this step. Mirostat takes the place of every filter but temperature. Unless `every` stage is wanted,
    top-p and a min-p right after it share one stage where that is faster.
    """
    stages: list[tuple[str, Candidates]] = []
    candidates, done = first, ""
    for name, following in zip(options.samplers, (*options.samplers[1:], ""), strict=True):
        if name == "xtc":
            if not excluding or mirostat is not None:
                continue
            candidates = xtc(candidates, options.xtc_threshold)
        else:
            value = getattr(options, name)
            if RARE.get(name) == value or (mirostat is not None and name != "temperature"):
                continue
            if (name, following) == ("top_p", "min_p") and not every and (both := top_p_and_min_p(candidates, value, options.min_p)):
                candidates, done = both, following
                continue
            if name != done:
                candidates = FILTERS[name](candidates, value)
        stages.append((name, candidates))
    if mirostat is not None:
        stages.append(("mirostat", mirostat.keep(candidates)))
    return stages or [("all", first)]
