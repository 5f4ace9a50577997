"""The autoregressive loop: draw a token for each row, read it, draw the next. Knows ids only - no text, no end tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgen.errors import TgenError
from tgen.executors.session import JoinableSession, Logits, Session
from tgen.sampling.sampler import Sampler

# A prompt is read so many ids at a time: enough to keep a CPU busy, few enough to say how far it is and to be stopped.
CHUNK = 256


def chunks(ids: Sequence[int], known: int = 0) -> list[Sequence[int]]:
    """A prompt in the pieces that it is read in. The first has what is `known` in front of it, which costs nothing."""
    ends = [*range(known + CHUNK, len(ids), CHUNK), len(ids)]
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row's token and the logits it was drawn from, [vocab], before penalties and temperature. `last`: nothing may follow it.

    `failure` is why there is no token: what is wrong with one row is not the end of the others.
    """

    token: int
    logits: Logits
    last: bool = False
    failure: TgenError | None = None


class Loop:
    """Rows that are continued together. What was drawn last is read only when the next column is asked for."""

    def __init__(self, session: Session, prompts: Sequence[Sequence[int]], samplers: Sequence[Sampler], sources: Sequence[int]) -> None:
        """Read the prompts, or what is left of them, at once; samples of one prompt share its prefill.

        Row r, drawn by samplers[r], continues prompts[sources[r]].
        """
        self._session = session
        self._samplers = list(samplers)
        logits = session.extend(prompts)
        session.select(sources)
        self._logits = logits[list(sources)]
        self._unread: list[int] = []

    def column(self) -> list[Drawn]:
        """One new token for each row, in order."""
        if self._unread:
            self._logits = self._session.extend([[token] for token in self._unread])
        drawn = [_draw(sampler, row) for sampler, row in zip(self._samplers, self._logits, strict=True)]
        self._unread = [item.token for item in drawn]
        return drawn

    def join(self, other: Loop, places: Sequence[int]) -> None:
        """Take over the rows of another loop that has drawn a column, into places of rows that are done or after the last."""
        if not isinstance(self._session, JoinableSession) or not isinstance(other._session, JoinableSession):
            raise TypeError(f"{type(self._session).__name__} lets no rows join")
        self._session.admit(other._session, range(len(places)), places)
        missing = max(0, max(places) + 1 - len(self._samplers))
        self._samplers += other._samplers[:1] * missing
        self._unread += [0] * missing
        for place, sampler, token in zip(places, other._samplers, other._unread, strict=True):
            self._samplers[place], self._unread[place] = sampler, token

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._session.select(rows)
        self._samplers = [self._samplers[row] for row in rows]
        self._unread = [self._unread[row] for row in rows]


def _draw(sampler: Sampler, logits: Logits) -> Drawn:
    try:
        return Drawn(sampler.draw(logits), logits, sampler.finished)
    except TgenError as failure:
        return Drawn(0, logits, last=True, failure=failure)
