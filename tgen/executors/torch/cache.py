"""The cache: for each row of a session, what each mixer keeps of the ids that the row has read.

Rows share no buffers. So a row takes memory only for its own length, its removal copies no other row, and it can move to another session.
Each kind of mixer makes its own kind of cache: attention makes `KeyValues`, a mixer that carries a state makes a `Recurrence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgen.spec.cache import STATES

# A buffer's size is a multiple of this many positions. A full buffer grows by a quarter, so a step rarely copies, and at most a fifth of a
# long row's buffer is unused.
BLOCK = 16
# A recurrence keeps the input of its last step if that had at most this many ids, so it can be cut back to any place within the step. That
# is enough for a step with guessed tokens.
TRAIL = 32

Carry = tuple[Tensor, ...]
Scan = Callable[[Tensor, Carry], tuple[Tensor, Carry]]


class KeyValues:
    """One attention layer's keys and values of one row, in one buffer [2, kv_heads, capacity, head_dim]."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer

    def store(self, start: int, kv: Tensor) -> Tensor:
        """Write keys and values [2, kv_heads, n, head_dim] at the positions from `start` on; return a view of all positions up to the last.

        Numbers that these positions held before are overwritten, so a failed step can be repeated.
        """
        end = start + kv.shape[2]
        if end > self.buffer.shape[2]:
            self.buffer = _grown(self.buffer, start, end)
        self.buffer.narrow(2, start, end - start).copy_(kv)
        return self.buffer.narrow(2, 0, end)

    def copy(self, length: int) -> KeyValues:
        """The first `length` positions in a buffer of their own."""
        return KeyValues(_grown(self.buffer, length, length))

    def reachable(self, length: int) -> int:
        """The cache can be cut back to any length."""
        return length

    def mark(self, length: int) -> None:
        """There is nothing to note."""

    def state(self, length: int) -> list[Tensor]:
        """Keys and values of the first `length` positions."""
        return [half[:, :length] for half in self.buffer]

    def restore(self, length: int, state: Sequence[Tensor]) -> None:
        """Fill the cache with what `state` returned."""
        self.store(0, torch.stack([half[:, :length] for half in state]))

    def layout(self, length: int) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        """Number formats and shapes of a state."""
        both, heads, _, head_dim = self.buffer.shape
        return [(self.buffer.dtype, (heads, length, head_dim))] * both

    @property
    def bytes(self) -> int:
        """The memory that the buffer takes."""
        return self.buffer.nbytes


class Recurrence:
    """A mixer's state after all ids that a row has read, and after some earlier places: the start of the last step, and the marks.

    No tensor is ever changed, so copies share the tensors.
    """

    def __init__(self, empty: Carry, scan: Scan) -> None:
        """`empty` is the carry before the first id. `scan` maps input [1, n, ...] and a carry to the mixer's result and the next carry."""
        self._scan = scan
        self._carries = {0: empty}
        self._marks: list[int] = []
        self._start = 0
        self._trail: Tensor | None = None

    def read(self, start: int, given: Tensor) -> Tensor:
        """Read input [1, n, ...] from position `start` on, and return the mixer's result. A failed step can be repeated."""
        carry = self._at(start)
        result, after = self._scan(given, carry)
        self._marks = [place for place in self._marks if place <= start]
        kept = {place: self._carries[place] for place in (0, *self._marks)}
        self._carries = {**kept, start: carry, start + given.shape[1]: after}
        self._start, self._trail = start, given.clone() if given.shape[1] <= TRAIL else None
        return result

    def reachable(self, length: int) -> int:
        """The largest length up to this one that the row can be cut back to."""
        if self._trail is not None and self._start <= length <= self._start + self._trail.shape[1]:
            return length
        return max(place for place in self._carries if place <= length)

    def mark(self, length: int) -> None:
        """Keep the state at this length, and that of the mark before it."""
        self._carries[length] = self._at(length)
        self._marks = [*(place for place in self._marks if place != length), length][2 - STATES :]

    def copy(self, length: int) -> Recurrence:  # noqa: ARG002
        """A recurrence with the same states, which can go another way from here."""
        other = Recurrence(self._carries[0], self._scan)
        other._carries, other._marks = dict(self._carries), self._marks
        other._start, other._trail = self._start, self._trail
        return other

    def state(self, length: int) -> list[Tensor]:
        """The carry after `length` ids, which must be reachable."""
        return list(self._at(length))

    def restore(self, length: int, state: Sequence[Tensor]) -> None:
        """Continue from what `state` returned for this length."""
        self._carries[length], self._start = tuple(state), length

    def layout(self, length: int) -> list[tuple[torch.dtype, tuple[int, ...]]]:  # noqa: ARG002
        """Number formats and shapes of a state."""
        return [(tensor.dtype, tuple(tensor.shape)) for tensor in self._carries[0]]

    @property
    def bytes(self) -> int:
        """The memory that the states take; a tensor that several places share counts once."""
        tensors = [*(tensor for carry in self._carries.values() for tensor in carry), *([] if self._trail is None else [self._trail])]
        return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())

    def _at(self, length: int) -> Carry:
        """The carry after `length` ids. Raises ValueError if it is out of reach."""
        if length not in self._carries:
            if self._trail is None or not self._start < length <= self._start + self._trail.shape[1]:
                raise ValueError(f"a state cannot be cut back to {length} ids")
            self._carries[length] = self._scan(self._trail[:, : length - self._start], self._carries[self._start])[1]
        return self._carries[length]


LayerCache = KeyValues | Recurrence


def capacity(start: int, end: int) -> int:
    """The positions of a new buffer that must hold `end` of them: a quarter more if it continues an old buffer (`start` > 0)."""
    wanted = end + end // 4 if start else end
    return -(-wanted // BLOCK) * BLOCK


def _grown(buffer: Tensor, start: int, end: int) -> Tensor:
    """A larger buffer with the first `start` positions of this one."""
    both, heads, _, head_dim = buffer.shape
    larger = buffer.new_empty(both, heads, capacity(start, end), head_dim)
    larger[:, :, :start] = buffer[:, :, :start]
    return larger


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A text that the encoder has read: its length m, and its keys and values for the decoder's cross-attention.

    `layers` holds a pair [batch, kv_heads, m, head_dim] for each layer. Rows of a session that answer the same text share one source, of
    batch 1. A padded batch has `positions` [batch, m], which are -1 at padding.
    """

    length: int
    layers: list[tuple[Tensor, Tensor]]
    positions: Tensor | None = None

    @property
    def bytes(self) -> int:
        """The memory that keys and values take."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


@dataclass(slots=True, weakref_slot=True)
class Row:
    """One sequence: how many ids it has read, each mixer's cache, and the source that it answers, if there is one."""

    length: int
    layers: list[LayerCache]
    source: Source | None = None

    def copy(self) -> Row:
        """The same row with buffers of its own; the source is shared."""
        return Row(self.length, [layer.copy(self.length) for layer in self.layers], self.source)

    def reachable(self, length: int) -> int:
        """The largest length up to this one that the row can be cut back to."""
        length = min(length, self.length)
        while (found := min((layer.reachable(length) for layer in self.layers), default=length)) < length:
            length = found
        return length

    def key_values(self, number: int) -> KeyValues:
        """The cache of a mixer that is attention."""
        layer = self.layers[number]
        assert isinstance(layer, KeyValues)
        return layer

    def recurrence(self, number: int) -> Recurrence:
        """The cache of a mixer that carries a state."""
        layer = self.layers[number]
        assert isinstance(layer, Recurrence)
        return layer

    def mark(self) -> None:
        """Make sure that the row can later be cut back to its present length."""
        for layer in self.layers:
            layer.mark(self.length)

    @property
    def bytes(self) -> int:
        """The memory that the row's layers take; a shared source is not counted."""
        return sum(layer.bytes for layer in self.layers)


def empty_key_values(heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
    """A cache that holds nothing and takes no memory."""
    return KeyValues(torch.empty(2, heads, 0, head_dim, device=device, dtype=dtype))
