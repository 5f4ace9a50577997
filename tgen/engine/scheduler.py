"""Continuous batching: requests enter a running batch as others leave it. Knows ids and events, no files and no lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tgen.engine.generator import Generator, Prepared
from tgen.engine.loop import Drawn, Loop, chunks
from tgen.engine.sample import Row
from tgen.errors import MemoryLimitError, TgenError
from tgen.events import Event, Finished, Note, Started
from tgen.options import Resolved
from tgen.sampling.sampler import Sampler

# Prompts that enter together are read together if the longest is longer than the shortest by no more than this share and so many ids:
# what a shorter one is padded with is computed for nothing.
PADDED_SHARE, PADDED_IDS = 0.25, 8
MOST_IDS = 2048  # read at once, so that long prompts need no more memory than they must


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, as text or ids, and the options to continue it with; `key` is whatever tells it from the others."""

    key: int
    prompt: str | Sequence[int]
    resolved: Resolved


@dataclass(frozen=True, slots=True)
class Refused:
    """What came in place of a request that cannot be meant."""

    key: int
    error: TgenError


# The next request. Told to wait, it returns None when there will be none any more; else also when there is none yet.
Take = Callable[[bool], Request | Refused | None]
Told = Iterator[tuple[int, Event | TgenError]]


@dataclass(slots=True, eq=False)
class _Job:
    """A request that was accepted. Each of its samples is a row of its own; `left` is how many have not ended."""

    key: int
    prepared: Prepared
    accepted: float
    left: int
    cut: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Seat:
    """A sample in the batch, or waiting for its place there. `entered` is when its first token was drawn."""

    job: _Job
    sampler: Sampler
    row: Row
    entered: float = 0.0


class Batch:
    """Continues many requests, at most `size` rows at once. A request has the text that it would have alone, with the same seed."""

    def __init__(self, generator: Generator, size: int) -> None:
        self._generator = generator
        self._size = size
        self._loop: Loop | None = None
        self._seats: list[_Seat | None] = []  # by row of the loop; None where a sample has ended
        self._waiting: deque[_Seat] = deque()
        self._over = False
        self._cancelled: Callable[[], bool] = lambda: False

    def run(self, take: Take, cancelled: Callable[[], bool] = lambda: False) -> Told:
        """The events of all requests as they come, each with its request's key; a request that fails ends with its error.

        A request is done with the last Finished of its samples. With beams it is computed alone. `cancelled` is asked once a step, and
        then nothing more comes. Raises MemoryLimitError where the rows do not fit into memory together.
        """
        self._cancelled = cancelled
        while not cancelled():
            yield from self._accept(take)
            yield from self._enter()
            if self._loop is not None:
                yield from self._feed(self._seats, self._loop.column())
            elif self._over and not self._waiting:
                return

    def _accept(self, take: Take) -> Told:
        """Take requests while there are rows to come."""
        while not self._over and self._taken() + len(self._waiting) < self._size and not self._cancelled():
            idle = not self._taken() and not self._waiting
            request = take(idle)
            if request is None:
                self._over = idle
                return
            if isinstance(request, Refused):
                yield request.key, request.error
                continue
            try:
                if request.resolved.options.num_beams > 1:
                    yield from self._alone(request)
                else:
                    yield from self._admit(request)
            except TgenError as error:
                yield request.key, error

    def _admit(self, request: Request) -> Told:
        """Make a request's rows. Raises TgenError for one that cannot be continued."""
        prepared = self._generator.prepare(request.prompt, request.resolved)
        samplers, rows = self._generator.rows(prepared, self._generator.guard(prepared))
        job = _Job(request.key, prepared, time.perf_counter(), len(rows))
        self._waiting.extend(_Seat(job, sampler, row) for sampler, row in zip(samplers, rows, strict=True))
        yield from ((request.key, Note(text)) for text in prepared.notes)
        yield request.key, Started(len(prepared.source or prepared.ids), prepared.options.max_new_tokens, prepared.seed)

    def _alone(self, request: Request) -> Told:
        """A request whose rows depend on one another. Notes come before the last Finished, which says that it is done."""
        events = list(self._generator.run(request.prompt, request.resolved, self._cancelled))
        if not self._cancelled():
            yield from ((request.key, event) for event in sorted(events, key=lambda event: isinstance(event, Finished)))

    def _taken(self) -> int:
        return sum(seat is not None for seat in self._seats)

    def _enter(self) -> Told:
        """Give what waits the rows that are free; rows that nobody wants are dropped."""
        if not self._taken():
            self._loop, self._seats = None, []
        free = self._size - self._taken()
        entering = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        for group in _alike(entering):
            try:
                loop = self._read(group)
            except TgenError as error:
                jobs = list(dict.fromkeys(seat.job for seat in group))
                if isinstance(error, MemoryLimitError) and (len(jobs) > 1 or self._taken()):
                    raise  # there is no saying whose fault it is
                for job in jobs:
                    yield from self._fail(job, error)
                continue
            if loop is None:
                return
            now = time.perf_counter()
            seats: list[_Seat | None] = [_Seat(seat.job, seat.sampler, seat.row, now) for seat in group]
            yield from self._feed(seats, loop.column())
            alive = [row for row, seat in enumerate(seats) if seat is not None]
            if alive:
                loop.keep(alive)
                self._join(loop, [seat for seat in seats if seat is not None])
        self._drop()

    def _read(self, group: list[_Seat]) -> Loop | None:
        """A loop of its own for samples whose prompts are alike in length; samples of one prompt share its prefill. None if cancelled."""
        jobs = list(dict.fromkeys(seat.job for seat in group))
        sources = [job.prepared.source for job in jobs if job.prepared.source]
        longest = max(len(job.prepared.ids) for job in jobs)
        # Who joins others only needs room for the prompt.
        room = longest if self._loop is not None else longest + max(job.prepared.options.max_new_tokens for job in jobs)
        session = self._generator.open_session(min(room, self._generator.context), sources or None)
        prompts: list[Sequence[int]] = [job.prepared.ids for job in jobs]
        if len(prompts) == 1:
            *early, prompts[0] = chunks(prompts[0])
            for part in early:
                session.extend([part])
                if self._cancelled():
                    return None
        return Loop(session, prompts, [seat.sampler for seat in group], [jobs.index(seat.job) for seat in group])

    def _join(self, loop: Loop, seats: list[_Seat]) -> None:
        """Put rows where others have ended, and the rest after the last."""
        if self._loop is None:
            self._loop, self._seats = loop, [*seats]
            return
        free = [place for place, seat in enumerate(self._seats) if seat is None]
        places = [*free, *range(len(self._seats), len(self._seats) + len(seats))][: len(seats)]
        self._loop.join(loop, places)
        self._seats += [None] * (max(places) + 1 - len(self._seats))
        for place, seat in zip(places, seats, strict=True):
            self._seats[place] = seat

    def _drop(self) -> None:
        """Go on without the rows that have ended."""
        alive = [row for row, seat in enumerate(self._seats) if seat is not None]
        if self._loop is None or len(alive) == len(self._seats):
            return
        if alive:
            self._loop.keep(alive)
        else:
            self._loop = None
        self._seats = [self._seats[row] for row in alive]

    def _feed(self, seats: list[_Seat | None], column: list[Drawn]) -> Told:
        """Hand each sample its token; one that has ended leaves its seat."""
        now = time.perf_counter()
        for place, (seat, drawn) in enumerate(zip(seats, column, strict=True)):
            if seat is None:
                continue
            job, row = seat.job, seat.row
            if drawn.failure is not None or job.failed:
                seats[place] = None
                yield from self._fail(job, drawn.failure)
                continue
            piece = row.feed(drawn)
            if piece is not None:
                yield job.key, piece
            if row.reason is None:
                continue
            seats[place] = None
            job.left -= 1
            job.cut = job.cut or row.reason == "length"
            if not job.left and job.cut and job.prepared.cut_note is not None:
                yield job.key, Note(job.prepared.cut_note)
            yield job.key, Finished(row.index, row.reason, row.count, seat.entered - job.accepted, now - seat.entered)

    def _fail(self, job: _Job, error: TgenError | None) -> Told:
        """A request ends with the first error of its samples; the others leave their seats when their turn comes."""
        self._waiting = deque(seat for seat in self._waiting if seat.job is not job)
        if not job.failed and error is not None:
            job.failed = True
            yield job.key, error


def _alike(seats: list[_Seat]) -> Iterator[list[_Seat]]:
    """Groups whose prompts are of about the same length."""
    group: list[_Seat] = []
    for seat in sorted(seats, key=_reads):
        unlike = group and _reads(seat) > _reads(group[0]) * (1 + PADDED_SHARE) + PADDED_IDS
        if unlike or len(group) * _reads(seat) >= MOST_IDS:
            yield group
            group = []
        group.append(seat)
    if group:
        yield group


def _reads(seat: _Seat) -> int:
    """How many ids are read before the first token can be drawn."""
    prepared = seat.job.prepared
    return len(prepared.source or prepared.ids)
