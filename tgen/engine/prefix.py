"""A session that outlives a generation, so that what was read once need not be read again. Knows ids only."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.executors.session import Logits, OpenSession, Session, State, StorableSession


class Memory:
    """A `Session` for one prompt after another: of a prompt that begins like what it has read last it reads only the rest.

    The session is taken out while it works, so that what an error or a Ctrl-C leaves half done is never trusted again.
    """

    def __init__(self, open_session: OpenSession, length: int) -> None:
        """`length` is the most ids that will ever be read, the model's context."""
        self._open_session = open_session
        self._length = length
        self._session: Session | None = None
        self._ids: list[int] = []
        self._skip = 0
        self._rows = 1

    @property
    def ids(self) -> list[int]:
        """What the session has read, in the order it was read; with several rows, what they have in common."""
        return list(self._ids) if self._session is not None else []

    def begin(self, ids: Sequence[int]) -> int:
        """Get ready for a prompt whose whole ids `extend` will be given next; returns how many of them were read before.

        That is never all of them, for the last one's logits are wanted.
        """
        known = common(self.ids, ids[:-1]) if self._rows == 1 else 0
        session, self._session = self._session, None
        if session is None or not known:
            session = self._open_session(self._length, None)
        elif known < len(self._ids):
            session.truncate([known])
        self._session, self._ids, self._skip, self._rows = session, self._ids[:known], known, 1
        return known

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Read more ids; of a prompt only what is new."""
        session = self._taken()
        fresh = [row[self._skip :] for row in rows]
        logits = session.extend(fresh)
        if self._rows == 1:
            self._ids += fresh[0]
        self._session, self._skip = session, 0
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows. Once there were several, they may differ behind what they began with."""
        session = self._taken()
        session.select(rows)
        self._rows = max(self._rows, len(rows))
        self._session = session

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what row r read beyond its first lengths[r] ids."""
        session = self._taken()
        session.truncate(lengths)
        self._ids = self._ids[: min(lengths)]
        self._session = session

    def state(self, length: int) -> State | None:
        """What the session holds of its first `length` ids; None if it cannot tell, or has not read as many."""
        if isinstance(self._session, StorableSession) and length <= len(self._ids):
            return self._session.state(length)
        return None

    def restore(self, ids: Sequence[int], state: State) -> None:
        """Go on from a state of these ids that another process stored. Raises ValueError for one that this model cannot have made."""
        session = self._open_session(self._length, None)
        if not isinstance(session, StorableSession):
            raise ValueError("this executor stores no cache")
        session.restore(len(ids), state)
        self._session, self._ids, self._rows = session, list(ids), 1

    def _taken(self) -> Session:
        session, self._session = self._session, None
        if session is None:
            raise ValueError("a memory needs to begin with a prompt")
        return session


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common before they differ."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)
