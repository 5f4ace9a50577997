"""The cache of the last prompt and its continuation, so that the next prompt is read only from where it begins to differ."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.executors.session import Executor, Session, State, StorableSession


class Prefix:
    """One row that outlives a generation, and the ids that it has read.

    The row is taken out while a request works with it, so that what an error or a Ctrl-C leaves half done is never trusted again.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._session: Session | None = None
        self._ids: list[int] = []

    @property
    def ids(self) -> list[int]:
        """The ids that the row has read, in their order; none while it is taken out."""
        return list(self._ids)

    def take(self, ids: Sequence[int]) -> tuple[Session | None, int]:
        """The row in a session, cut back to what it has in common with a prompt, and how many ids that is.

        It is never all of the prompt, for the logits after its last id are wanted. None where nothing is in common.
        """
        session, known = self._session, common(self._ids, ids[:-1])
        self._session, self._ids = None, []
        if session is None or not known:
            return None, 0
        session.truncate([known])
        return session, known

    def keep(self, session: Session, ids: Sequence[int]) -> None:
        """Take over a session whose one row has read these ids, and perhaps more."""
        session.truncate([len(ids)])
        self._session, self._ids = session, list(ids)

    def state(self, length: int) -> State | None:
        """The cache of the row's first `length` ids; None if the executor cannot tell, or the row has not read as many."""
        if isinstance(self._session, StorableSession) and length <= len(self._ids):
            return self._session.state(length)
        return None

    def restore(self, ids: Sequence[int], state: State) -> None:
        """Go on from a state of these ids that another process stored. Raises ValueError for one that this model cannot have made."""
        session = self._executor.open()
        if not isinstance(session, StorableSession):
            raise ValueError("this executor stores no cache")
        session.restore(len(ids), state)
        self._session, self._ids = session, list(ids)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common before they differ."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)
