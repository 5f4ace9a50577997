"""From logits to a token: penalties, temperature, top-k, top-p, min-p, draw - in this order, which is Hugging Face's.

Works on NumPy arrays, one row at a time, and knows neither a model nor text. Filter first, sort what is left: a vocabulary has
100,000 entries and more, the nucleus a few hundred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tgen.errors import TgenError
from tgen.executors.session import Logits
from tgen.options import GenerationOptions
from tgen.sampling.rules import Rules

Ids = npt.NDArray[np.intp]
Values = npt.NDArray[np.float64]

# Logits are float32, and so exact are the probabilities: without this, eight of ten equal tokens would not always sum to 0.8.
ROUNDING = 1e-6

# Penalties of any size stop here: infinities cannot be subtracted from one another.
LARGEST = 1e300


class NumericalError(TgenError):
    """The model returned numbers that are not finite."""

    type = "numerical"


def require_finite(numbers: npt.NDArray[np.floating[Any]], where: str) -> None:
    """Raise NumericalError for NaN or infinity, saying where."""
    if not np.isfinite(numbers).all():
        raise NumericalError(f"the model's numbers are not finite {where}", "try --dtype float32")


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens still in play: ids in ascending order, [n], and their logits after temperature, [n]."""

    ids: Ids
    logits: Values

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Candidates:
        """Those where `chosen` is true."""
        return replace(self, ids=self.ids[chosen], logits=self.logits[chosen])

    def probabilities(self) -> Values:
        """Softmax over the candidates, [n]."""
        weights = np.exp(self.logits - self.logits.max())
        total: Values = weights / weights.sum()
        return total


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Exactly the k highest; among equals the lower ids. 0 is off."""
    count = len(candidates.ids)
    if k == 0 or k >= count:
        return candidates
    smallest = np.partition(candidates.logits, count - k)[count - k]
    above = candidates.logits > smallest
    tied = np.flatnonzero(candidates.logits == smallest)
    above[tied[: k - int(above.sum())]] = True
    return candidates.keep(above)


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of highest-probability tokens whose sum reaches p, the crossing one included (arXiv:1904.09751). 1 is off."""
    if p >= 1:
        return candidates
    probabilities = candidates.probabilities()
    # Tokens below this bound sum to less than 1 - p together, so none of them is needed to reach p.
    likely = np.flatnonzero(probabilities >= min((1 - p) / len(probabilities), probabilities.max()))
    # A stable sort of the negated values: highest first, lower ids first among equals.
    order = likely[np.argsort(-probabilities[likely], kind="stable")]
    cumulative = np.cumsum(probabilities[order])
    needed = int(np.searchsorted(cumulative, p - ROUNDING)) + 1
    kept = np.zeros(len(probabilities), dtype=np.bool_)
    kept[order[:needed]] = True
    return candidates.keep(kept)


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Tokens at least p times as likely as the likeliest one (arXiv:2407.01082). 0 is off."""
    if p == 0:
        return candidates
    return candidates.keep(candidates.logits >= candidates.logits.max() + np.log(p) - ROUNDING)


def penalise(logits: Logits, counts: dict[int, int], generated: dict[int, int], options: GenerationOptions) -> Values:
    """Make repetition less likely; the input stays as it is, the result is finite.

    Repetition (arXiv:1909.05858) looks at `counts`, the tokens of prompt and output, once per distinct token; presence and frequency
    look at the output alone, as OpenAI defines them.
    """
    scores = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        if options.repetition_penalty != 1 and counts:
            ids = np.fromiter(counts, dtype=np.intp)
            seen = scores[ids]
            changed = np.where(seen < 0, seen * options.repetition_penalty, seen / options.repetition_penalty)
            scores[ids] = changed.clip(-LARGEST, LARGEST)
        if (options.presence_penalty or options.frequency_penalty) and generated:
            ids = np.fromiter(generated, dtype=np.intp)
            times = np.fromiter(generated.values(), dtype=np.float64)
            changed = scores[ids] - (options.presence_penalty + options.frequency_penalty * times)
            scores[ids] = changed.clip(-LARGEST, LARGEST)
    return scores


def draw(candidates: Candidates, uniform: float) -> int:
    """Inverse CDF in the order of ids: a change in the last bit of a logit then moves a border, not the order."""
    weights = np.exp(candidates.logits - candidates.logits.max())
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return int(candidates.ids[min(index, len(candidates.ids) - 1)])


@dataclass(frozen=True, slots=True)
class Trace:
    """One step as the sampler saw it: raw logits and scores after penalties and rules, each [vocab]; what was left after each filter.

    `stages` begin with all candidates after temperature; at temperature 0 there are none, and no random number.
    """

    logits: Logits
    scores: Values
    stages: tuple[tuple[str, Candidates], ...]
    uniform: float | None
    token: int


FILTERS = (("top_k", top_k), ("top_p", top_p), ("min_p", min_p))

# How many tokens are drawn at one step, if a constraint turns each of them down, before it chooses one itself.
TRIES = 8


class Guard(Protocol):
    """A constraint on one row: what a mask forbids, and what would leave no way to end the text in time."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        ...

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, [vocab]; at least one may."""
        ...

    def admits(self, token: int) -> bool:
        """Whether an allowed token leaves a way to the end."""
        ...

    def safe(self) -> int:
        """A token that does."""
        ...

    def take(self, token: int) -> None:
        """It was drawn."""
        ...


class Sampler:
    """The sampling of one row, with its own random stream: the s-th draw of (seed, row) is the same at any batch size."""

    def __init__(
        self,
        options: GenerationOptions,
        seed: int,
        row: int,
        prompt: Sequence[int],
        rules: Rules | None = None,
        watch: Callable[[Trace], None] | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`watch` is shown every step; the numbers it sees are those that were used. `guard` is the constraint, if there is one."""
        self.options = options
        self.step = 0
        self._rules = rules if rules is not None and not rules.empty else None
        self._watch = watch
        self._guard = guard
        self._ids = list(prompt)
        self._counts = dict(Counter(prompt))
        self._generated: dict[int, int] = {}
        # Philox is counter-based: one number is taken a step, and (seed, row) is its key.
        self._random = np.random.Generator(np.random.Philox(key=np.array([seed, row], dtype=np.uint64)))

    @property
    def finished(self) -> bool:
        """Whether the constraint, if there is one, lets nothing follow."""
        return self._guard is not None and self._guard.finished

    def draw(self, logits: Logits) -> int:
        """The next token for logits [vocab]. Raises NumericalError if a logit is NaN or infinite."""
        require_finite(logits, f"at step {self.step}")
        penalised = scores = penalise(logits, self._counts, self._generated, self.options)
        if self._rules is not None:
            scores = self._rules.apply(scores, self._ids, self.step)
        uniform = None if self.options.temperature == 0 else self._random.random()
        if self._guard is None:
            stages, token = self._choose(scores, uniform)
        else:
            scores, stages, token = self._guarded(self._guard, penalised, scores, uniform)
        if self._watch is not None:
            self._watch(Trace(logits, scores, tuple(stages), uniform, token))
        self._ids.append(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        self._generated[token] = self._generated.get(token, 0) + 1
        self.step += 1
        return token

    def _choose(self, scores: Values, uniform: float | None) -> tuple[list[tuple[str, Candidates]], int]:
        """The token that scores [vocab] and a random number give, and what each filter left on the way to it."""
        if uniform is None:
            return [], int(np.argmax(scores))
        stages = self._filtered(scores)
        return stages, draw(stages[-1][1], uniform)

    def _guarded(
        self, guard: Guard, penalised: Values, ruled: Values, uniform: float | None
    ) -> tuple[Values, list[tuple[str, Candidates]], int]:
        """The same among what a constraint lets through, and the scores that were left.

        A token that leaves no way to the end is taken out and the draw repeated, with the same random number: one number a step, so the
        text is that of plain masking until then. A constraint promises a whole text, so it goes before rules of generation_config.json:
        where these leave nothing of what it allows, they do not count.
        """
        allowed = guard.allowed()
        scores = np.where(allowed, ruled, -np.inf)
        if scores.max() == -np.inf:
            scores = np.where(allowed, penalised, -np.inf)
        for _ in range(min(TRIES, int((scores > -np.inf).sum()))):
            stages, token = self._choose(scores, uniform)
            if guard.admits(token):
                break
            scores[token] = -np.inf
        else:
            token = guard.safe()
            scores = np.full_like(scores, -np.inf)
            scores[token] = penalised[token]
            stages, _ = self._choose(scores, uniform)
        guard.take(token)
        return scores, stages, token

    def _filtered(self, scores: Values) -> list[tuple[str, Candidates]]:
        """What is left after each filter, by its name; the last is what is drawn from."""
        # Differences to the highest, not the scores themselves: a tiny temperature makes these infinite, and leaves that one alone.
        with np.errstate(over="ignore"):
            scaled = (scores - scores.max()) / self.options.temperature
        first = Candidates(np.arange(len(scores)), scaled)
        if self._guard is not None:  # nothing that is masked may stand in the way of a filter's count
            first = first.keep(scores > -np.inf)
        stages = [("temperature", first)]
        for name, keep in FILTERS:
            stages.append((name, keep(stages[-1][1], getattr(self.options, name))))
        return stages


def log_softmax(logits: Logits) -> Values:
    """Natural logarithms of the raw distribution's probabilities, [vocab]."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: Values = wide - np.log(np.exp(wide).sum())
    return result
