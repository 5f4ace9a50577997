"""Keeps the caches of prompts that have ended, so that many requests with the same beginning read that beginning once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgen.engine.prefix import common
from tgen.executors.session import Executor, Session

# A shorter beginning is read again: it is less than a page of the native executor's cache, which has 16 positions.
LEAST = 16
MOST_ROWS = 64


def begin_alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two texts share at least LEAST ids. Most do not, and this check is quicker than counting the shared ids."""
    return len(one) >= LEAST and one[:LEAST] == other[:LEAST]


@dataclass(slots=True, eq=False)
class _Kept:
    """A session with one row, and the ids that the row has read."""

    session: Session
    ids: Sequence[int]
    bytes: int


class SharedPrefixes:
    """Rows that outlive their requests, the one used longest ago first. Unlike with a `Prefix`, a request gets a copy of a row."""

    draft = None  # a draft model reads each prompt itself

    def __init__(self, executor: Executor, most_bytes: float, most_rows: int = MOST_ROWS) -> None:
        """Keeps at most `most_rows` rows, which take at most `most_bytes`; pages that rows share count for each of them."""
        self.bytes = 0
        self._executor = executor
        self._most_bytes = most_bytes
        self._most_rows = most_rows
        self._rows: list[_Kept] = []

    def longest(self, ids: Sequence[int]) -> int:
        """The most ids of a prompt that any row has read; 0 if they are too few to be of use."""
        return self._best(ids)[1]

    def take(self, ids: Sequence[int]) -> tuple[Session | None, int]:
        """A copy of the row that shares the most ids with a prompt, cut back to them, and their number. None and 0 if they are too few.

        The prompt's last id is never among them, because the caller needs the logits after it.
        """
        row, known = self._best(ids)
        if row is None:
            return None, 0
        self._rows.remove(row)
        self._rows.append(row)
        row.session.select([0, 0])
        session = row.session.split(1)
        row.session.select([0])
        session.truncate([known])
        return session, known

    def keep(self, session: Session, ids: Sequence[int]) -> None:
        """Keep a session whose one row has read these ids, unless another row has read them too.

        Drops the rows that have read only a beginning of them.
        """
        if len(ids) < LEAST or any(common(row.ids, ids) == len(ids) for row in self._alike(ids)):
            return
        known = session.reachable(0, len(ids))
        session.truncate([known])
        for row in self._alike(ids):
            if common(row.ids, ids) == len(row.ids):
                self._rows.remove(row)
        self._rows.append(_Kept(session, list(ids[:known]), self._executor.row_bytes(known)))
        self.bytes = sum(row.bytes for row in self._rows)
        while len(self._rows) > self._most_rows or self.bytes > self._most_bytes:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Give up the row that was used longest ago; returns False if there is none."""
        if not self._rows:
            return False
        self.bytes -= self._rows.pop(0).bytes
        return True

    def _best(self, ids: Sequence[int]) -> tuple[_Kept | None, int]:
        read = ids[:-1]
        shared = ((row.session.reachable(0, common(row.ids, read)), row) for row in self._alike(read))
        known, row = max(shared, key=lambda found: found[0], default=(0, None))
        return (row, known) if known >= LEAST else (None, 0)

    def _alike(self, ids: Sequence[int]) -> list[_Kept]:
        """The rows that share enough ids to be of use."""
        return [row for row in self._rows if begin_alike(row.ids, ids)]
