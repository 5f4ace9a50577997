"""From the logits of a step to its token: biases, penalties, rules, filters, draw - in Hugging Face's order, unless asked for another.

It works on NumPy arrays, one row at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tgen.arrays import Ids, Logits, Mask
from tgen.options import GenerationOptions
from tgen.sampling.adjustment import Adjustment
from tgen.sampling.candidates import LOWEST, Candidates
from tgen.sampling.filters import filtered
from tgen.sampling.logits import FEW, keep_some, places_from, require_finite
from tgen.sampling.mirostat import Mirostat
from tgen.sampling.rejection import redraw
from tgen.sampling.rules import Rules
from tgen.sampling.wording import Wording


@dataclass(frozen=True, slots=True)
class Trace:
    """One step of the sampler: raw logits and scores after penalties and rules, each [vocab], and the candidates after each filter.

    At temperature 0, `stages` is empty and `uniform` is None.
    """

    logits: Logits
    scores: Logits
    stages: tuple[tuple[str, Candidates], ...]
    uniform: float | None
    token: int


# If a constraint rejects this many drawn tokens in one step, it chooses a token itself.
TRIES = 8


class Guard(Protocol):
    """A constraint on one row: a mask forbids some tokens, and after some of the others the text could not be completed in time."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        ...

    def allowed(self) -> Mask:
        """Which tokens may come next, [vocab]; at least one may."""
        ...

    def admits(self, token: int) -> bool:
        """Whether the text can be completed in time after an allowed token."""
        ...

    def safe(self) -> int:
        """An allowed token after which the text can be completed in time."""
        ...

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
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
        wording: Wording | None = None,
    ) -> None:
        """`watch` gets a Trace of every step, with the very numbers that were used. `guard` is the constraint, if there is one."""
        self.options = options
        self.step = 0
        self._adjustment = Adjustment(options, rules, prompt, wording)
        self._watch = watch
        self._guard = guard
        self._random = stream(seed, row)
        self._coins = stream(seed, row, 2) if options.xtc_probability and "xtc" in options.samplers else None
        self._excluding = False
        self._highest: float | None = None  # the highest logit, if nothing changes the logits
        self._mirostat = Mirostat(options.mirostat_tau, options.mirostat_eta) if options.mirostat_tau else None

    @property
    def finished(self) -> bool:
        """Whether the text is complete by the constraint, if there is one."""
        return self._guard is not None and self._guard.finished

    def draw(self, logits: Logits, guess: int | None = None, proposal: Candidates | None = None) -> int:
        """The next token for logits [vocab]. Raises NumericalError if a logit is NaN or infinite.

        A `guess` that was drawn from the candidates of a `proposal` becomes the token as often as the distribution allows (`redraw`).
        Under a constraint or at temperature 0, it does not change the draw.
        """
        self._highest = require_finite(logits, f"at step {self.step}")
        penalised, scores = self._adjustment.apply(logits)
        if scores is not logits:
            self._highest = None
        uniform = None if self.options.temperature == 0 else self._random.random()
        self._excluding = self._coins is not None and self._coins.random() < self.options.xtc_probability
        if self._guard is None:
            stages, token = self._choose(scores, uniform)
            if guess is not None and proposal is not None and uniform is not None:
                token = redraw(stages[-1][1], guess, proposal, uniform)
        else:
            scores, stages, token = self._guarded(self._guard, penalised, scores, uniform)
        if self._watch is not None:
            self._watch(Trace(logits, scores, tuple(stages), uniform, token))
        self._adjustment.take(token)
        if self._mirostat is not None and stages:
            self._mirostat.learn(stages[0][1] if len(stages) > 1 else self._all(scores), token)
        self.step += 1
        return token

    def _choose(self, scores: Logits, uniform: float | None) -> tuple[list[tuple[str, Candidates]], int]:
        """The candidates after each filter, and the token that the random number selects; None selects the highest score."""
        if uniform is None:
            return [], int(np.argmax(scores))
        stages = self._filtered(scores)
        return stages, stages[-1][1].at(uniform)

    def _guarded(
        self, guard: Guard, penalised: Logits, ruled: Logits, uniform: float | None
    ) -> tuple[Logits, list[tuple[str, Candidates]], int]:
        """The scores that were used, then what `_choose` returns, among the tokens that a constraint allows.

        If the text could not be completed in time after a token, the step masks the token and repeats the draw with the same random
        number. So a step takes one random number, and up to that token the text is that of plain masking. A constraint promises a complete
        text, so it wins over the rules: if these forbid everything that it allows, they do not count.
        """
        allowed = guard.allowed()
        scores = keep_some(ruled, allowed)
        if not len(places_from(scores, LOWEST, 1)):
            scores = keep_some(penalised, allowed)
        for _ in range(min(TRIES, len(places_from(scores, LOWEST, TRIES)))):
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

    def _filtered(self, scores: Logits) -> list[tuple[str, Candidates]]:
        """The candidates after each filter, with its name; the draw is from the last."""
        watched = self._watch is not None
        return filtered(self._all(scores), self.options, excluding=self._excluding, mirostat=self._mirostat, every=watched)

    def _all(self, scores: Logits) -> Candidates:
        """The candidates before any filter, at temperature 1."""
        if self._guard is None:
            return Candidates(_every(len(scores)), scores, _highest=self._highest)
        # With a constraint, top-k must not count masked tokens.
        first, allowed = Candidates(_every(len(scores)), scores, cut=True), places_from(scores, LOWEST, FEW)
        return first if len(allowed) > FEW else first.keep(allowed)


def stream(seed: int, row: int, number: int = 0) -> np.random.Generator:
    """A random stream of a row: a sampler takes one number of stream 0 for each step.

    Stream 1 is that of a draft model's guesses, stream 2 that of XTC. Philox is a counter-based generator: (seed, row) is its key. The
    streams of a row begin so far from one another that they never meet.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, row], dtype=np.uint64), counter=np.array([0, 0, 0, number], np.uint64)))


@functools.lru_cache(maxsize=4)
def _every(vocab: int) -> Ids:
    """All ids; rows share the array, so it is read-only."""
    ids = np.arange(vocab)
    ids.flags.writeable = False
    return ids
