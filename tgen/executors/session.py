"""The engine's whole view of a model: two small protocols, without a tensor framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy.typing as npt

from tgen.arrays import Logits

State = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """Rows of ids that are continued together. The cache lives here, never on the model, and each row has one of its own length."""

    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        """Append one row for each source; the rows have read nothing yet.

        A source is the text that the row's encoder reads, here and once; None for a model without an encoder.
        """
        ...

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Let every row read at least one more id; return logits [rows, vocab] float32 of each row's last position.

        A whole prompt or a part of it is prefill, one id is a decode step; one call may mix them. After an error no row has read anything.
        """
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows. A repeated row is copied; every other one stays where it is."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Let row r forget every id beyond its first lengths[r]."""
        ...

    def split(self, row: int) -> Self:
        """A session of its own with this row, which both share until one of them is dropped: only one of them may go on."""
        ...

    def join(self, other: Self) -> None:
        """Append all rows of another session of the same model, which is empty afterwards."""
        ...


@runtime_checkable
class StorableSession(Session, Protocol):
    """A session whose cache can leave the process. A state means something only to a session of the same model and number format."""

    def state(self, length: int) -> State:
        """The cache of the first row's first `length` ids."""
        ...

    def restore(self, length: int, state: State) -> None:
        """Append a row that has read as many ids. Raises ValueError for a state that does not fit them or the model."""
        ...


class Executor(Protocol):
    """A loaded model that opens sessions."""

    def open(self) -> Session:
        """A session without rows."""
        ...

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:
        """Bytes of cache that a row takes after so many ids, and after so many ids of a source for its encoder."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes of memory that caches may still take; None if the system does not say."""
        ...
