"""Keeps the cache of the last prompt and its continuation: the model reads the next prompt only from the first id that differs."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.executors.session import Executor, Session, State, StorableSession


class Prefix:
    """One row that outlives a generation, and the ids that it has read.

    A request takes the row out while it works. If an error or Ctrl-C stops the request, no later request uses the unfinished row.
    """

    def __init__(self, executor: Executor, draft: Executor | None = None) -> None:
        """`draft` runs the draft model, if there is one; its row has a prefix of its own."""
        self.draft = Prefix(draft) if draft else None
        self._executor = executor
        self._session: Session | None = None
        self._ids: list[int] = []

    @property
    def ids(self) -> list[int]:
        """The ids that the row has read, in order; empty while a request has the row."""
        return list(self._ids)

    def take(self, ids: Sequence[int]) -> tuple[Session | None, int]:
        """Take out the row, cut back to ids that it shares with a prompt; returns its session and the number of these ids.

        The prompt's last id is never among them, because the caller needs the logits after it. Returns None and 0 if no id is shared.
        """
        session, known = self._session, common(self._ids, ids[:-1])
        self._session, self._ids = None, []
        if session is None or not known:
            return None, 0
        known = session.reachable(0, known)
        session.truncate([known])
        return session, known

    def keep(self, session: Session, ids: Sequence[int]) -> None:
        """Keep a session whose one row has read these ids; the row forgets any ids after them."""
        known = session.reachable(0, len(ids))
        session.truncate([known])
        self._session, self._ids = session, list(ids[:known])

    def state(self, length: int) -> State | None:
        """The cache of the row's first `length` ids; None if the executor stores no cache, or if the row has no such beginning."""
        session = self._session
        if isinstance(session, StorableSession) and length <= len(self._ids) and session.reachable(0, length) == length:
            return session.state(length)
        return None

    def restore(self, ids: Sequence[int], state: State) -> None:
        """Continue from a stored state of these ids. Raises ValueError for a state that does not fit the ids or the model."""
        session = self._executor.open()
        if not isinstance(session, StorableSession):
            raise ValueError("this executor stores no cache")
        session.restore(len(ids), state)
        self._session, self._ids = session, list(ids)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common prefix of two sequences."""
    same, differs = 0, min(len(one), len(other)) + 1
    while differs - same > 1:  # comparing slices is many times faster than comparing ids one by one
        middle = (same + differs) // 2
        same, differs = (middle, differs) if one[same:middle] == other[same:middle] else (same, middle)
    return same
