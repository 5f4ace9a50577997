"""The protocols through which the engine sees a model, which name no tensor framework, and the selection of rows that sessions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from tgen.arrays import Logits

State = dict[str, npt.NDArray[Any]]
Hidden = npt.NDArray[np.float32]


class Interrupt:
    """A flag with which one thread ends a session's read in another thread. It stays up until that other thread lowers it."""

    def __init__(self) -> None:
        self.flag = np.zeros(1, np.int32)

    def up(self) -> None:
        """Ask for an early end of the read."""
        self.flag[0] = 1

    def down(self) -> None:
        """Lower the flag, because the read has ended."""
        self.flag[0] = 0

    @property
    def raised(self) -> bool:
        """Whether it is up."""
        return bool(self.flag[0])


class Session(Protocol):
    """Rows of ids that the model continues together. The session holds the cache, never the model; each row's cache has its own length."""

    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        """Append one row for each source; the rows have read nothing yet.

        A source is the text that the encoder reads in this call; None for a model without an encoder.
        """
        ...

    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
        """Let every row read at least one more id; return the logits of row r's last `tails[r]` positions, row after row.

        The result is float32 [sum(tails), vocab]; tails are 0 to len(rows[r]), and None means 1 for each row. One call may mix prefill
        (several ids of a prompt) and decode (one id). After an error no row has read anything.
        """
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows. Only a row that is repeated is copied."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Let row r forget every id beyond its first lengths[r]. Raises ValueError for a length that is not reachable."""
        ...

    def reachable(self, row: int, length: int) -> int:
        """The largest length up to this one that a row can be cut back to.

        A cache of keys and values can be cut back to any length. A cache that holds a state can be cut back to nothing, to the last two
        marked places, to the start of the last step, and to any place within that step if it was short.
        """
        ...

    def mark(self, row: int) -> None:
        """Make sure that a row can later be cut back to the ids that it has read."""
        ...

    def split(self, row: int) -> Self:
        """A new session with this row. Both sessions share the row's cache, so only one of them may extend it."""
        ...

    def join(self, other: Self) -> None:
        """Append all rows of another session of the same model, which is empty afterwards."""
        ...


@runtime_checkable
class StorableSession(Session, Protocol):
    """A session whose cache can be stored. A stored state fits only sessions of the same model and number format."""

    def state(self, length: int) -> State:
        """The cache of the first row's first `length` ids; the row must be able to be cut back to this length."""
        ...

    def restore(self, length: int, state: State) -> None:
        """Append a row that has read `length` ids. Raises ValueError for a state that does not fit the length or the model."""
        ...


@runtime_checkable
class InterruptibleSession(Session, Protocol):
    """A session that can stop reading at once."""

    def extend_unless(self, interrupt: Interrupt, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits | None:
        """The result of `extend`; None if another thread raised the flag before the end. Then no row has read anything."""
        ...

    def make_room(self, interrupt: Interrupt, row: int, count: int) -> None:
        """Take memory for `count` more ids of a row, or for some of them if another thread interrupts it, because `extend` would take it
        without looking.
        """
        ...


class Executor(Protocol):
    """A loaded model that opens sessions: all that generating and scoring need."""

    @property
    def exact(self) -> bool:
        """Whether a position's logits have the same bits however many ids and rows a call reads."""
        ...

    def open(self) -> Session:
        """A session without rows."""
        ...

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:
        """Bytes of cache that a row takes for `tokens` ids and for a source of `source_tokens` ids."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes of memory that caches may still take; None if the system does not say."""
        ...


class LoadedModel(Executor, Protocol):
    """An executor with what the other tasks need besides. Every executor implements this whole protocol."""

    def encode(self, texts: Sequence[Sequence[int]]) -> list[Hidden]:
        """The hidden states of each text, float32 [n, width]: the encoder's, or a lone decoder's. Every text has at least one id."""
        ...

    def masked_logits(self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Logits:
        """Logits at some positions of each text that an encoder-only model reads, text after text: float32 [all places, vocab]."""
        ...

    def step_bytes(self, length: int) -> int:
        """Bytes that a decode step of one row reads after `length` ids: weights and cache."""
        ...

    def reader(self, size: int) -> Callable[[], object]:
        """What reads `size` bytes, whole megabytes, of memory of its own with all that a step has, as fast as it can."""
        ...

    def describe(self) -> str:
        """The executor, device, number format and threads, for people."""
        ...


class CopyableRow(Protocol):
    """A row of a session's cache."""

    def copy(self) -> Self:
        """The same row; what one of the two reads later does not change the other."""
        ...


AnyRow = TypeVar("AnyRow", bound=CopyableRow)


def selected(rows: Sequence[AnyRow], numbers: Sequence[int]) -> list[AnyRow]:
    """The rows with these numbers. A row that comes again is copied."""
    taken: set[int] = set()
    chosen = []
    for number in numbers:
        chosen.append(rows[number].copy() if number in taken else rows[number])
        taken.add(number)
    return chosen
