"""Continuous batching: requests join a running batch, advance together step by step, and each leaves when it ends.

In a step every row that decodes reads its last token, and rows of new requests read a part of their prompts; one forward pass computes
both. The loop knows no text, no end tokens and no sampling: a `Writer` turns logits into events and tokens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from tgen.arrays import Logits
from tgen.engine.prefix import Prefix
from tgen.engine.request import Prepared
from tgen.errors import MemoryLimitError, TgenError
from tgen.events import Event, Finished, Note, Reading, Started
from tgen.executors.session import Executor

# A step reads at most this many ids of one prompt: enough to keep the machine busy, few enough to report progress and to stop soon.
CHUNK = 256
# While no row decodes, a step reads up to this many ids of several prompts: more would only take more memory.
TOGETHER = 2048
# While rows decode, a step reads this many ids of prompts, and two more for each row that decodes. It then takes about twice as long as a
# step that only decodes: a pass over few ids spends its time on reading the weights, which takes as long as computing some 16 ids.
BESIDE = 16
# The share of the free memory that caches may take; the rest is for the activations of a pass.
CACHE_SHARE = 0.8
# A step that can only wait for a constraint to be compiled returns after this many seconds, so that its caller can cancel.
PATIENCE_SECONDS = 0.05

Told = list[tuple[int, Event | TgenError]]


@dataclass(frozen=True, slots=True)
class Next:
    """One row of the next step: the number of the row that it continues, and the token that it reads."""

    parent: int
    token: int


class Writer(Protocol):
    """Continues one request, by beam search or by drawing samples side by side."""

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
        """Take logits [rows, vocab], at first of a single row; return events and the rows of the next step, none when the request ends.

        Raises TgenError if the request cannot continue.
        """
        ...

    def cancel(self) -> list[Event]:
        """End now; return the last events."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """A request in the scheduler. One row reads its prompt; then it has as many rows as its writer returns, at most `rows`."""

    key: int
    prepared: Prepared
    rows: int
    writer: Future[Writer]
    prefix: Prefix | None = None
    accepted: float = field(default_factory=time.perf_counter)
    entered: float = 0.0  # when the prompt was read
    known: int = 0  # how many ids of the prompt its prefix had read
    done: int = 0  # how many ids of the prompt have been read
    tokens: list[int] = field(default_factory=list)  # the token that each row reads next
    read: list[int] = field(default_factory=list)  # the tokens read after the prompt, if the job has a single row
    bytes: int = 0  # the most cache that its rows may need
    left: int = 0  # how many samples have not ended
    cut: bool = False  # whether the length limit ended a sample

    @property
    def reading(self) -> bool:
        """Whether a part of the prompt is unread."""
        return self.done < len(self.prepared.ids)

    @property
    def width(self) -> int:
        """How many rows of the session the job has now."""
        return 1 if self.reading else len(self.tokens)

    def block(self, most: int) -> list[Sequence[int]]:
        """The ids that its rows read in the next step: one token each, or up to `most` ids of the prompt, but at least one."""
        if not self.reading:
            return [[token] for token in self.tokens]
        size = max(1, min(CHUNK, most))
        return [self.prepared.ids[self.done : self.done + size]]

    def started(self) -> Started:
        """The Started event of this request."""
        prepared = self.prepared
        return Started(len(prepared.source or prepared.ids), prepared.options.max_new_tokens, prepared.seed, self.known)

    def told(self, events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
        """A writer's events with the request's key and times; a note comes before the last one if the context cut the text."""
        now = time.perf_counter()
        for event in events:
            if isinstance(event, Finished):
                self.left -= 1
                self.cut = self.cut or event.reason == "length"
                if not self.left and self.cut and self.prepared.cut_note is not None:
                    yield self.key, Note(self.prepared.cut_note)
                entered = self.entered or now
                yield self.key, replace(event, prefill_seconds=entered - self.accepted, decode_seconds=now - entered)
            else:
                yield self.key, event


class Scheduler:
    """Runs any number of requests, at most `rows` rows at once. Each request gets the text that it would get alone."""

    def __init__(self, executor: Executor, rows: int = 16, *, beside: int | None = None) -> None:
        """`beside` is how many ids of prompts a step reads while rows decode; None reads few, to keep the time between tokens short."""
        self._executor = executor
        self._session = executor.open()
        self._rows = rows
        self._beside = beside
        self._running: list[Job] = []  # in the order of their rows in the session
        self._waiting: deque[Job] = deque()
        self._most_bytes: float | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._waiting

    @property
    def room(self) -> int:
        """How many rows are free after every running and waiting request has its own; negative if more requests wait than fit."""
        return self._rows - sum(job.rows for job in (*self._running, *self._waiting))

    def add(self, job: Job) -> None:
        """Add a request to the queue."""
        job.left = job.prepared.options.samples
        self._waiting.append(job)

    def cancel(self, key: int) -> Told:
        """End a waiting or running request without affecting the others. Returns its last events."""
        for job in self._waiting:
            if job.key == key:
                self._waiting.remove(job)
                return [*self._notes(job), *self._cancelled(job)]
        for job in self._running:
            if job.key == key:
                told = self._cancelled(job)
                self._keep(job, self._offset(job))
                self._drop(job)
                return told
        return []

    def step(self) -> Told:
        """Advance every row that decodes by one token, and read a part of the new prompts. Returns the events with their keys."""
        told: Told = []
        blocks = self._blocks(told)
        if not blocks:
            return told
        try:
            logits = self._session.extend([row for rows in blocks for row in rows])
        except MemoryLimitError as error:
            # No row has read anything. The newest request ends with this error, and the next step tries again without it.
            job = self._running[-1]
            self._drop(job)
            return [*told, (job.key, error)]
        selection: list[int] = []
        going: list[Job] = []
        offset = 0
        for job, rows in zip(self._running, blocks, strict=True):
            chosen = self._advance(job, rows, logits[offset : offset + len(rows)], offset, told)
            selection += [offset + row for row in chosen]
            going += [job] if chosen else []
            offset += len(rows)
        self._running = going
        if selection != list(range(offset)):
            self._session.select(selection)
        return told

    def _advance(self, job: Job, rows: list[Sequence[int]], logits: Logits, offset: int, told: Told) -> list[int]:
        """Pass a step's logits to a job. Returns the rows that the job's next rows continue, counted within the job."""
        if job.reading:
            job.done += len(rows[0])
            if job.reading:
                told.append((job.key, Reading(job.done, len(job.prepared.ids))))
                return [0]
            job.entered = time.perf_counter()
            told.append((job.key, job.started()))
        elif job.rows == 1:
            job.read += job.tokens
        try:
            events, following = job.writer.result().take(logits)
        except TgenError as error:
            told.append((job.key, error))
            return []
        told += job.told(events)
        job.tokens = [row.token for row in following]
        if not following:
            self._keep(job, offset)
        return [row.parent for row in following]

    def _blocks(self, told: Told) -> list[list[Sequence[int]]]:
        """The ids that each running job's rows read in this step. Starts waiting jobs while there is room and more ids may be read."""
        writing = sum(job.width for job in self._running if not job.reading)
        left = TOGETHER if not writing else BESIDE + 2 * writing if self._beside is None else self._beside
        blocks = []
        for job in self._running:
            blocks.append(job.block(left))
            left -= len(blocks[-1][0]) if job.reading else 0
        while left > 0 and (entering := self._enter(told)) is not None:
            blocks.append(entering.block(left))
            left -= len(blocks[-1][0]) + len(entering.prepared.source or ())
        return blocks

    def _enter(self, told: Told) -> Job | None:
        """Start the next ready job: give it a row of the session. Returns None if no job is ready, or if there is no room for it yet."""
        while (job := self._next_ready()) is not None:
            try:
                job.writer.result()
                if not self._fits(job):
                    return None
                self._waiting.remove(job)
                told += self._notes(job)
                self._open_row(job)
            except TgenError as error:
                if job in self._waiting:
                    self._waiting.remove(job)
                told.append((job.key, error))
                continue
            self._running.append(job)
            return job
        return None

    def _next_ready(self) -> Job | None:
        """The first waiting job whose writer is ready. Another thread compiles constraints; if no job runs, wait briefly for one."""
        if not self._running and self._waiting:
            wait([job.writer for job in self._waiting], PATIENCE_SECONDS, FIRST_COMPLETED)
        return next((job for job in self._waiting if job.writer.done()), None)

    def _fits(self, job: Job) -> bool:
        """Whether rows and memory suffice for a job. A job that is alone always starts: if memory runs out, the pass fails."""
        ids, source = len(job.prepared.ids) + job.prepared.options.max_new_tokens, len(job.prepared.source or ())
        job.bytes = job.rows * self._executor.row_bytes(ids, source)
        if not self._running:
            return True
        if self._most_bytes is None:
            free = self._executor.free_bytes()
            self._most_bytes = float("inf") if free is None else CACHE_SHARE * free
        rows, taken = sum(one.rows for one in self._running), sum(one.bytes for one in self._running)
        return rows + job.rows <= self._rows and taken + job.bytes <= self._most_bytes

    def _open_row(self, job: Job) -> None:
        """Add a row for a job's prompt to the session; the ids that the job's prefix has already read count as done."""
        session = None
        if job.prefix is not None:
            session, job.known = job.prefix.take(job.prepared.ids)
            job.done = job.known
        if session is None:
            self._session.admit([job.prepared.source])
        else:
            self._session.join(session)

    def _keep(self, job: Job, row: int) -> None:
        """Give a row's cache to the job's prefix: of a single row all ids that it has read, of several rows the prompt that they share."""
        if job.prefix is not None:
            job.prefix.keep(self._session.split(row), [*job.prepared.ids[: job.done], *job.read])

    def _drop(self, job: Job) -> None:
        """Remove a job and its rows."""
        offset = self._offset(job)
        total = sum(one.width for one in self._running)
        self._running.remove(job)
        self._session.select([row for row in range(total) if not offset <= row < offset + job.width])

    def _offset(self, job: Job) -> int:
        """The number of a job's first row."""
        return sum(one.width for one in self._running[: self._running.index(job)])

    def _notes(self, job: Job) -> Told:
        return [(job.key, Note(text)) for text in job.prepared.notes]

    def _cancelled(self, job: Job) -> Told:
        """The last events of a cancelled job."""
        started: Told = [] if job.entered else [(job.key, job.started())]
        if job.writer.done() and job.writer.exception() is None:
            return [*started, *job.told(job.writer.result().cancel())]
        return [*started, *job.told([Finished(index, "cancelled", 0, 0.0, 0.0) for index in range(job.left)])]
