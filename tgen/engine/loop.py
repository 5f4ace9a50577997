"""The autoregressive loop: draw a token for each row, read it, draw the next. Knows ids only - no text, no end tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgen.engine.sampling import Sampler
from tgen.engine.session import Logits, Session


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row's token and the logits it was drawn from, [vocab], before penalties and temperature. `last`: nothing may follow it."""

    token: int
    logits: Logits
    last: bool = False


class Loop:
    """Rows that are continued together. What was drawn last is read only when the next column is asked for."""

    def __init__(self, session: Session, prompts: Sequence[Sequence[int]], samplers: Sequence[Sampler], sources: Sequence[int]) -> None:
        """Read the prompts at once; row r, drawn by samplers[r], continues prompts[sources[r]]: samples of one prompt share its prefill."""
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
        drawn = [Drawn(sampler.draw(row), row, sampler.finished) for sampler, row in zip(self._samplers, self._logits, strict=True)]
        self._unread = [item.token for item in drawn]
        return drawn

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._session.select(rows)
        self._samplers = [self._samplers[row] for row in rows]
        self._unread = [self._unread[row] for row in rows]
