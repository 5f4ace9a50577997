"""Shows each step of the sampler as a table of candidates. The numbers come from the sampler's trace; nothing is computed again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tgen.engine.generator import Generator
from tgen.events import Event, Finished, Piece
from tgen.options import Resolved
from tgen.sampling.candidates import Candidates
from tgen.sampling.logits import log_softmax
from tgen.sampling.sampler import Trace
from tgen.sampling.selection import ranked
from tgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token at one step: its raw logit and probability, its score (the logit after penalties), and its probability after each filter.

    `after` has the keys temperature, top_k, top_p, min_p and those of other filters that run, in their order; it is empty at temperature 0.
    `cut_by` is the filter that cut the token; from that filter on, its probability in `after` is None. For a token that the rules forbid,
    `cut_by` is "rules", and it has no score. `low` is where the token's share of the unit interval begins; None for a token that was cut.
    """

    id: int
    text: str
    logit: float
    probability: float
    score: float | None
    after: dict[str, float | None]
    cut_by: str | None
    drawn: bool
    low: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """One token: its candidates, the likeliest first; how many candidates each filter left; and the random number that drew the token.

    `low` and `high` are the borders of the drawn token's share of the unit interval.
    """

    number: int
    token: int
    text: str
    uniform: float | None
    low: float
    high: float
    left: dict[str, int]
    candidates: tuple[Candidate, ...]


def explain(
    generator: Generator, prompt: str | Sequence[int], resolved: Resolved, count: int, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[Step | Event]:
    """The events of a generation. A Step for each token of the first sample comes before the event to which the token leads.

    A step has the `count` best candidates, and always the drawn one. A generator that draws in another thread may be some tokens ahead of
    its events; then the Steps come early.
    """
    traces: deque[Trace] = deque()
    number = 0
    for event in generator.run(prompt, resolved, cancelled, watch=traces.append):
        if isinstance(event, Piece | Finished):
            while traces:
                yield make_step(traces.popleft(), number, generator.tokenizer, count)
                number += 1
        yield event


def make_step(trace: Trace, number: int, tokenizer: Tokenizer, count: int) -> Step:
    """A trace as a table of the `count` best candidates and the drawn one."""
    best: list[int] = ranked(trace.scores, count).tolist()
    shown = best if trace.token in best else [*best[:-1], trace.token]
    probabilities = np.exp(log_softmax(trace.logits))
    shares = {name: _shares(stage, shown) for name, stage in trace.stages}
    borders = _borders(trace, shown)
    candidates = []
    for token in shown:
        forbidden = trace.scores[token] == -np.inf
        after = {name: None if forbidden else shares[name][token] for name in shares}
        candidates.append(
            Candidate(
                id=token,
                text=tokenizer.decode([token], special=True),
                logit=float(trace.logits[token]),
                probability=float(probabilities[token]),
                score=None if forbidden else float(trace.scores[token]),
                after=after,
                cut_by="rules" if forbidden else next((name for name, share in after.items() if share is None), None),
                drawn=token == trace.token,
                low=borders.get(token, (None,))[0],
            )
        )
    low, high = borders[trace.token]
    left = {name: len(stage.ids) for name, stage in trace.stages}
    return Step(number, trace.token, tokenizer.decode([trace.token], special=True), trace.uniform, low, high, left, tuple(candidates))


def _shares(candidates: Candidates, tokens: list[int]) -> dict[int, float | None]:
    """Each token's probability among the candidates, None if it is not one of them."""
    probabilities = candidates.probabilities()
    places = np.searchsorted(candidates.ids, tokens)
    return {
        token: float(probabilities[place]) if place < len(candidates.ids) and candidates.ids[place] == token else None
        for token, place in zip(tokens, places, strict=True)
    }


def _borders(trace: Trace, tokens: list[int]) -> dict[int, tuple[float, float]]:
    """The borders of each kept token's share of the unit interval, on which the candidates are ordered by id."""
    if not trace.stages:
        return {trace.token: (0.0, 1.0)}
    last = trace.stages[-1][1]
    cumulative = np.cumsum(last.probabilities())
    places = {token: int(np.searchsorted(last.ids, token)) for token in tokens}
    return {
        token: (float(cumulative[place - 1]) if place else 0.0, float(cumulative[place]))
        for token, place in places.items()
        if place < len(last.ids) and last.ids[place] == token
    }
