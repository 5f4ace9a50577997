"""The engine's whole view of a model: one small protocol. Knows no tensor framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """One batch of sequences being continued: the cache lives here, never on the model."""

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Read more ids, row by row; returns logits [rows, vocab] float32 of each row's last position.

        With whole prompts this is prefill, with one id a row a decode step.
        """
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what row r read beyond its first lengths[r] ids."""
        ...


@runtime_checkable
class StorableSession(Session, Protocol):
    """A session whose cache can leave the process. A state means something only to a session of the same model and number format."""

    def state(self, length: int) -> State:
        """What the first row's first `length` ids have left in the cache."""
        ...

    def restore(self, length: int, state: State) -> None:
        """Begin with one row that has read as many ids. Raises ValueError for a state that does not fit them or the model."""
        ...


@runtime_checkable
class JoinableSession(Session, Protocol):
    """A session whose rows may be joined by others while they are being continued."""

    def admit(self, other: Self, rows: Sequence[int], places: Sequence[int]) -> None:
        """Let rows of another session of the same model join: each takes the place of a row that is done, or a new one after the last."""
        ...


# Opens a session for a number of ids to be read and, for a model with an encoder, the source texts of its rows.
OpenSession = Callable[[int, Sequence[Sequence[int]] | None], Session]
