"""Implements the engine's protocols with the native library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.arrays import Logits
from tgen.executors.formats import available_memory
from tgen.executors.native import interface as c
from tgen.executors.native.model import MOST_TOKENS, CachedRow, NativeModel, pages_for
from tgen.executors.native.weights import address, new_memory
from tgen.executors.session import Hidden, Interrupt, selected
from tgen.spec.cache import row_numbers


class NativeExecutor:
    """A loaded model that opens sessions.

    It is exact: a row's logits have the same bits whatever runs beside it, and however its ids were divided among calls.
    """

    exact = True

    def __init__(self, model: NativeModel, description: str) -> None:
        """`description` names the kernel, the number format and the threads, for people."""
        self.model = model
        self._description = description

    def open(self) -> NativeSession:
        """A session without rows."""
        return NativeSession(self.model)

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:
        """Bytes of cache that a row takes for `tokens` ids and for a source of `source_tokens` ids: whole pages of 16 positions."""
        total = pages_for(tokens) * self.model.caches["decoder"].page_bytes if "decoder" in self.model.caches else 0
        return total + (pages_for(source_tokens) * self.model.caches["cross"].page_bytes if source_tokens else 0)

    def free_bytes(self) -> int | None:
        """Bytes of memory that caches may still take; None if the system does not say."""
        return available_memory()

    def encode(self, texts: Sequence[Sequence[int]]) -> list[Hidden]:
        """The hidden states of each text, float32 [n, width]: the encoder's, or a lone decoder's. Every text has at least one id."""
        return self.model.encode(texts)

    def masked_logits(self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Logits:
        """Logits at some positions of each text that an encoder-only model reads, text after text: float32 [all places, vocab]."""
        cache = self.model.caches["encoder"]
        found = []
        for text, wanted in zip(texts, places, strict=True):
            if any(not 0 <= place < len(text) for place in wanted):
                raise ValueError("a place lies beyond the text")
            ascending, order = np.unique(np.array(wanted, np.int32), return_inverse=True)  # the library takes places in ascending order
            found.append(self.model.run("fill", [cache.new_row()], [len(text)], ids=[text], selected=ascending.tolist())[order])
        return np.concatenate(found)

    def step_bytes(self, length: int) -> int:
        """Bytes that a decode step of one row reads after `length` ids: the matrices that it multiplies by, and the cache."""
        return self.model.weights.step_bytes(self.model.spec) + row_numbers(self.model.spec, length) * self.model.cache_item_bytes

    def reader(self, size: int) -> Callable[[], object]:
        """What reads `size` bytes, whole megabytes, of memory of its own with all threads, as fast as they can."""
        memory = new_memory(self.model.library, size)
        memory.view(np.float32).fill(1)  # the system makes pages of their own only of what was written to
        return lambda: self.model.read(memory)

    def describe(self) -> str:
        """The executor, device, number format and threads, for people."""
        return f"native, {self._description}"


class NativeSession:
    """Rows of ids and their caches. Copies of a row share its source, and its pages until one of them writes."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._rows: list[CachedRow] = []

    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        """Append one row for each source; texts for the encoder are read together."""
        model = self._model
        if "decoder" not in model.caches or any((source is None) != (model.spec.encoder is None) for source in sources):
            raise ValueError("rows need a decoder, and a source if and only if the model has an encoder")
        texts = [source for source in sources if source is not None]
        if not all(texts):
            raise ValueError("a source text needs at least one id")
        read = iter(model.project(model.encode(texts)) if texts else [])
        self._rows += [model.caches["decoder"].new_row(None if source is None else next(read)) for source in sources]

    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
        """Read more ids, row by row; returns the logits [sum(tails), vocab] of each row's last `tails[r]` positions, 1 by default."""
        return self._extend(None, rows, tails)

    def extend_unless(self, interrupt: Interrupt, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits | None:
        """The same; None if another thread interrupted it. The library reads the flag before every instruction, several times a layer."""
        try:
            return self._extend(interrupt, rows, tails)
        except InterruptedError:
            return None

    def make_room(self, interrupt: Interrupt, row: int, count: int) -> None:
        """Take pages for `count` more ids of a row, until another thread interrupts it. If memory runs out, the run will tell."""
        for room in range(c.LANES, count + c.LANES, c.LANES):
            if interrupt.raised or self._model.library.tgen_row_reserve(self._rows[row].address, room):
                return

    def _extend(self, interrupt: Interrupt | None, rows: Sequence[Sequence[int]], tails: Sequence[int] | None) -> Logits:
        if len(rows) != len(self._rows) or not rows or not all(rows):
            raise ValueError(f"expected at least one id for each of {len(self._rows)} rows")
        wanted = [1] * len(rows) if tails is None else list(tails)
        if len(wanted) != len(rows) or any(not 0 <= tail <= len(ids) for tail, ids in zip(wanted, rows, strict=True)):
            raise ValueError("expected a tail for each row, from 0 to its number of ids")
        before = [row.length for row in self._rows]
        try:
            if sum(map(len, rows)) <= MOST_TOKENS:
                return self._step(interrupt, range(len(rows)), rows, wanted)
            return self._in_parts(interrupt, rows, wanted)
        except BaseException:
            self.truncate(before)  # after an error no row has read anything
            raise

    def _in_parts(self, interrupt: Interrupt | None, rows: Sequence[Sequence[int]], tails: Sequence[int]) -> Logits:
        """The same in several runs, none of which reads more than MOST_TOKENS ids. The division does not change a bit of the result."""
        found: list[list[Logits]] = [[] for _ in rows]
        done = [0] * len(rows)
        while any(place < len(row) for place, row in zip(done, rows, strict=True)):
            room, numbers, blocks = MOST_TOKENS, [], []
            for number, row in enumerate(rows):
                if done[number] < len(row) and room:
                    blocks.append(row[done[number] : done[number] + room])
                    numbers.append(number)
                    room -= len(blocks[-1])
            some = []
            for number, block in zip(numbers, blocks, strict=True):
                done[number] += len(block)
                some.append(min(len(block), max(0, done[number] - (len(rows[number]) - tails[number]))))
            logits = self._step(interrupt, numbers, blocks, some)
            for number, part in zip(numbers, np.split(logits, np.cumsum(some)[:-1]), strict=True):
                found[number].append(part)
        return np.concatenate([part for parts in found for part in parts])

    def _step(self, interrupt: Interrupt | None, numbers: Sequence[int], blocks: Sequence[Sequence[int]], tails: Sequence[int]) -> Logits:
        """One run of some rows."""
        rows = [self._rows[number] for number in numbers]
        counts = list(map(len, blocks))
        places = [place for end, tail in zip(accumulate(counts), tails, strict=True) for place in range(end - tail, end)]
        logits = self._model.run("decode", rows, counts, ids=blocks, selected=places, interrupt=interrupt)
        for row, count in zip(rows, counts, strict=True):
            self._model.library.tgen_row_grow(row.address, count)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows. Copies of a repeated row share its pages until one of them writes."""
        self._rows = selected(self._rows, rows)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Let row r forget every id beyond its first lengths[r]."""
        for row, length in zip(self._rows, lengths, strict=True):
            row.truncate(length)

    def reachable(self, row: int, length: int) -> int:  # noqa: ARG002
        """A row can be cut back to any length."""
        return length

    def mark(self, row: int) -> None:
        """There is nothing to note."""

    def split(self, row: int) -> NativeSession:
        """A new session with a copy of this row, which shares its pages."""
        other = NativeSession(self._model)
        other._rows = [self._rows[row].copy()]
        return other

    def join(self, other: NativeSession) -> None:
        """Append all rows of another session of the same model, which is empty afterwards."""
        self._rows += other._rows
        other._rows = []

    def state(self, length: int) -> dict[str, npt.NDArray[Any]]:
        """The pages of the first row's first `length` ids, [pages, bytes]."""
        if not 0 <= length <= self._rows[0].length:
            raise ValueError(f"the row has read {self._rows[0].length} ids, not {length}")
        size = self._model.caches["decoder"].page_bytes
        pages = np.empty((pages_for(length), size), np.uint8)
        for number in range(len(pages)):
            self._model.library.tgen_row_read_page(self._rows[0].address, number, address(pages[number]))
        return {"pages": pages}

    def restore(self, length: int, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append a row that has read `length` ids. Raises ValueError for a state that does not fit the length or the model."""
        if self._model.spec.encoder is not None:
            raise ValueError("a row that attends to a source cannot be restored")
        size = self._model.caches["decoder"].page_bytes
        pages = state.get("pages")
        if length < 1 or set(state) != {"pages"} or pages is None or pages.dtype != np.uint8 or pages.shape != (pages_for(length), size):
            raise ValueError("the state is that of another model or number format")
        row = self._model.caches["decoder"].new_row()
        if self._model.library.tgen_row_reserve(row.address, length):
            raise MemoryError
        pages = np.ascontiguousarray(pages)
        for number in range(len(pages)):
            self._model.library.tgen_row_write_page(row.address, number, address(pages[number]))
        self._model.library.tgen_row_grow(row.address, length)
        self._rows.append(row)
