"""Beam search: keep the few likeliest continuations at each step, return the likeliest complete ones.

The bookkeeping follows transformers, so that the same settings give the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tgen.arrays import Logits
from tgen.checkpoint.generation import GenerationConfig
from tgen.engine.job import Next
from tgen.engine.sample import Sample
from tgen.events import Event, FinishReason
from tgen.sampling.adjustment import Adjustment
from tgen.sampling.logits import require_finite

# The score of a beam that does not count. It is finite, so that sums with it stay numbers.
NONE_YET = np.float32(-1e9)


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """How many beams, and when to stop.

    `early_stopping` True stops as soon as that many beams have ended; False stops when no running beam beats the worst ended one at its
    present length; "never" stops when no running beam can beat it at any length. Scores are sums of log-probabilities divided by
    length ** length_penalty. With `renormalised`, the probabilities that penalties and rules leave are scaled to add up to 1.
    """

    beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    renormalised: bool = False


@dataclass(order=True, slots=True)
class Ended:
    """A complete continuation and its score."""

    score: float
    ids: list[int] = field(compare=False)


class Search:
    """The beams of one prompt."""

    def __init__(self, settings: BeamSettings, end_tokens: frozenset[int], max_new_tokens: int) -> None:
        self.settings = settings
        self.end_tokens = end_tokens
        self.max_new_tokens = max_new_tokens
        self.running: list[list[int]] = [[] for _ in range(settings.beams)]
        # All beams start equal, so only the first one counts: otherwise every beam would find the same tokens.
        self.scores = np.full(settings.beams, NONE_YET, dtype=np.float32)
        self.scores[0] = 0
        self.ended: list[Ended] = []
        self.done = False

    def advance(self, log_probabilities: npt.NDArray[np.float32]) -> list[int]:
        """Extend every beam by its log-probabilities [beams, vocab].

        Returns, for each new beam, the old one it continues.
        """
        beams, vocab = log_probabilities.shape
        if self.settings.renormalised:
            log_probabilities = log_softmax32(log_probabilities)
        totals = (log_probabilities + self.scores[:, None]).ravel()
        # Enough candidates that `beams` of them continue even if all of the best ones end.
        keep = min(max(2, 1 + len(self.end_tokens)) * beams, totals.size)
        best = np.argpartition(-totals, keep - 1)[:keep]
        best = best[np.lexsort((best, -totals[best]))]
        parents, tokens = best // vocab, best % vocab
        length = len(self.running[0]) + 1
        ends = np.isin(tokens, list(self.end_tokens)) | (length >= self.max_new_tokens)
        for rank in np.flatnonzero(ends[:beams]):
            ids = [*self.running[parents[rank]], int(tokens[rank])]
            self.ended.append(Ended(float(totals[best[rank]]) / length**self.settings.length_penalty, ids))
        self.ended = sorted(self.ended, reverse=True)[:beams]
        running = np.where(ends, totals[best] + NONE_YET, totals[best])
        going = np.argsort(-running, kind="stable")[:beams]
        chosen = [int(parents[rank]) for rank in going]
        self.scores = running[going]
        self.running = [[*self.running[parents[rank]], int(tokens[rank])] for rank in going]
        self.done = bool(ends.all()) or self._settled(length)
        return chosen

    def best(self, count: int) -> list[list[int]]:
        """The ids of the highest-scoring complete continuations."""
        return [ended.ids for ended in self.ended[:count]]

    def cut(self) -> None:
        """End the search now; if no beam has ended, the best running one counts as complete."""
        if not self.ended:
            self.ended = [Ended(float(self.scores[0]), self.running[0])]
        self.done = True

    def _settled(self, length: int) -> bool:
        """Whether the search is over by the rule of `early_stopping`."""
        settings = self.settings
        if len(self.ended) < settings.beams:
            return False
        if settings.early_stopping is True:
            return True
        reached = self.max_new_tokens if settings.early_stopping == "never" and settings.length_penalty > 0 else length
        return bool(self.scores[0] / reached**settings.length_penalty <= self.ended[-1].score)


class Beams:
    """Continues one request by beam search; all text comes at the end, because any beam may win until then."""

    def __init__(self, search: Search, adjustment: Adjustment, samples: Sequence[Sample]) -> None:
        """Each beam starts with a copy of `adjustment`, which is the prompt's; the best beams become the samples."""
        self._search = search
        self._adjustments = [adjustment.copy() for _ in search.running]
        self._samples = samples
        self._step = 0

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
        """Extend the beams by logits [rows, vocab]; at first there is one row for all beams.

        Raises NumericalError for logits that are not finite.
        """
        search = self._search
        require_finite(logits, f"at step {self._step}")
        self._step += 1
        shared = len(logits) == 1
        scores = np.repeat(log_softmax32(logits), search.settings.beams if shared else 1, axis=0)
        adjusted = [adjustment.apply(row)[1] for row, adjustment in zip(scores, self._adjustments, strict=True)]
        parents = search.advance(np.stack(adjusted))
        if search.done:
            return self._texts(), []
        self._adjustments = [self._adjustments[parent].copy() for parent in parents]
        for adjustment, ids in zip(self._adjustments, search.running, strict=True):
            adjustment.take(ids[-1])
        return [], [Next(0 if shared else parent, ids[-1]) for parent, ids in zip(parents, search.running, strict=True)]

    def cancel(self, reason: FinishReason = "cancelled") -> list[Event]:
        """End the search now; returns its events."""
        self._search.cut()
        return self._texts(reason)

    def _texts(self, reason: FinishReason = "cancelled") -> list[Event]:
        """The events of the best texts; a text that has not ended ends for this reason."""
        events: list[Event] = []
        best = self._search.best(len(self._samples))
        for sample, ids in zip(self._samples, best, strict=False):
            for token in ids:
                if sample.reason is None:
                    events += sample.feed(token)
            if sample.reason is None:
                events += sample.end(reason)
        return events + [event for sample in self._samples[len(best) :] for event in sample.end(reason)]


def read_beams(config: GenerationConfig, beams: int) -> BeamSettings:
    """The settings of a search; the model folder sets how beams are scored and when the search stops."""
    return BeamSettings(beams, config.length_penalty, config.early_stopping, config.renormalised)


def log_softmax32(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities, [rows, vocab], in float32, as transformers computes them."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Logits = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
