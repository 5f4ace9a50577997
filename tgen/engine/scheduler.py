"""Continuous batching: requests join a running batch, advance together step by step, and each leaves when it ends.

In a step every row that decodes reads its last token and guesses of the next ones, and rows of new requests read a part of their prompts;
one forward pass computes both. The loop knows no text, no end tokens and no sampling: a `Writer` turns logits into events and tokens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import accumulate
from typing import cast

from tgen.arrays import Logits
from tgen.engine.draft import Draft, DraftGuesses
from tgen.engine.job import Job
from tgen.engine.pace import Pace
from tgen.engine.prefix import common
from tgen.engine.shared import LEAST, SharedPrefixes, begin_alike
from tgen.errors import MemoryLimitError, TgenError
from tgen.events import Event, Finished, Note, Reading
from tgen.executors.session import Executor, Interrupt, InterruptibleSession

# A step reads at most this many ids of all prompts together: more would take more memory and save no time.
TOGETHER = 2048
# The share of the free memory that caches may take; the rest is for the activations of a pass.
CACHE_SHARE = 0.8
# A step that can only wait for a constraint to be compiled returns after this many seconds, so that its caller can cancel.
PATIENCE_SECONDS = 0.05
# A request waits while another one reads the beginning that both prompts share, if that saves reading at least this many ids.
WORTH_WAITING = 32
# A new request does not interrupt a step that reads at most this many ids: such a step takes about as long as a few steps of decode.
UNINTERRUPTED = 64

Told = list[tuple[int, Event | TgenError]]


class Scheduler:
    """Runs any number of requests, at most `rows` rows at once. Each request gets the text that it would get alone."""

    def __init__(
        self,
        executor: Executor,
        rows: int = 16,
        *,
        beside: int | None = None,
        draft: Draft | None = None,
        interrupt: Interrupt | None = None,
    ) -> None:
        """`beside` is how many ids of prompts a step reads while rows decode; with None, so few that the time between tokens stays short.

        The model of `draft`, if there is one, makes the guesses. A caller whose requests may come at any time gives `interrupt`, and raises
        it for each new request: the request then need not wait until a part of a long prompt has been read. Short prompts are then read
        before longer ones.
        """
        self._executor = executor
        self._session = executor.open()
        self._rows = rows
        self._beside = beside
        self._pace = Pace(measured=executor.exact)
        self._draft = draft
        self._interrupt = interrupt
        interruptible = interrupt is not None and isinstance(self._session, InterruptibleSession)  # too slow to check in each step
        self._interruptible = cast(InterruptibleSession, self._session) if interruptible else None
        self._interrupted = False  # whether the last step was; the next one cannot be, so that there is progress
        self._running: list[Job] = []  # in the order of their rows in the session
        self._waiting: deque[Job] = deque()
        self._most_bytes: float | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._waiting

    @property
    def running(self) -> list[int]:
        """The keys of the requests that run."""
        return [job.key for job in self._running]

    @property
    def waiting(self) -> list[int]:
        """The keys of the requests that wait."""
        return [job.key for job in self._waiting]

    @property
    def only_reads(self) -> bool:
        """Whether prompts are read and no row decodes."""
        return all(job.reading for job in self._running)

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
        """Advance every row that decodes by a token or more, and read a part of the new prompts. Returns the events with their keys."""
        told: Told = []
        blocks = self._blocks(told)
        if not blocks:
            return told
        tails = [job.tails(block) for job, block in zip(self._running, blocks, strict=True)]
        try:
            logits = self._read([ids for block in blocks for ids in block], [tail for block in tails for tail in block])
        except MemoryLimitError as error:
            # No row has read anything. The next step tries again without the rows kept for later requests; if there are none, the newest
            # request ends with this error.
            job = self._running[-1]
            if isinstance(job.prefix, SharedPrefixes) and job.prefix.drop_oldest():
                while job.prefix.drop_oldest():
                    pass
                return told
            self._drop(job)
            return [*told, (job.key, error)]
        if logits is None:
            return told
        selection: list[int] = []
        going: list[Job] = []
        offset = 0
        ends = [*accumulate(map(sum, tails))]
        for job, block, start, end in zip(self._running, blocks, [0, *ends], ends, strict=False):
            chosen = self._advance(job, block, logits[start:end], offset, told)
            selection += [offset + row for row in chosen]
            going += [job] if chosen else []
            offset += len(block)
        self._running = going
        if selection != list(range(offset)):
            self._session.select(selection)
        if any(row.wrong for job in going for row in job.next):
            self._session.truncate([length for job in going for length in job.lengths])
        return told

    def _read(self, rows: list[Sequence[int]], tails: list[int]) -> Logits | None:
        """The session's logits; None if the step was interrupted. The pace learns the time of every step in which rows decode."""
        ids = sum(map(len, rows))
        if self.only_reads:
            if self._interrupt is not None and self._interruptible is not None and not self._interrupted and ids > UNINTERRUPTED:
                logits = self._interruptible.extend_unless(self._interrupt, rows, tails)
                self._interrupted = logits is None
                return logits
            self._interrupted = False
            return self._session.extend(rows, tails)
        begin = time.perf_counter()
        logits = self._session.extend(rows, tails)
        decoding = sum(job.width for job in self._running if not job.reading)
        reading = any(job.reading for job in self._running)
        self._pace.learn(ids - decoding if reading else 0, time.perf_counter() - begin)
        return logits

    def _advance(self, job: Job, block: list[Sequence[int]], logits: Logits, offset: int, told: Told) -> list[int]:
        """Pass a step's logits to a job. Returns the parents of the job's next rows, as numbers within the job; none if it has ended."""
        job.lengths = [length + len(ids) for length, ids in zip(job.lengths, block, strict=True)]
        try:
            if job.reading:
                job.read_prompt(block[0], logits)
                if job.prefix is not None:
                    self._session.mark(offset)
                if job.reading:
                    told.append((job.key, Reading(job.done, len(job.prepared.ids))))
                    return [0]
                job.entered = time.perf_counter()
                told.append((job.key, job.started()))
                logits = logits[-1:]
            events, following = job.writer.result().take(logits)
        except TgenError as error:
            told.append((job.key, error))
            return []
        told += job.told(events)
        if following and job.overdue:
            told += job.told(job.writer.result().cancel("time"))
            following = []
        job.remember_read()
        if not following:
            self._keep(job, offset)
        return job.go_on(following)

    def _blocks(self, told: Told) -> list[list[Sequence[int]]]:
        """The ids that each running job's rows read in this step. Starts waiting jobs while there is room and more ids may be read."""
        decoding, guesses = self._offer()
        budget = TOGETHER if not decoding else self._beside_rows(decoding, guesses)
        while (entering := self._enter(told, budget)) is not None:
            budget -= len(entering.prepared.source or ())
        shares = self._shares(decoding, budget)
        return [job.block(shares.get(job.key, 0)) for job in self._running]

    def _beside_rows(self, decoding: int, guesses: int) -> int:
        """How many ids of prompts a step reads beside `decoding` rows that decode and their `guesses`."""
        if self._beside is not None:
            return self._beside
        coming = min(len(self._waiting), self._rows - sum(job.rows for job in self._running))
        prompts = sum(job.reading for job in self._running) + coming
        return min(TOGETHER, self._pace.beside(decoding, prompts, guesses))

    def _shares(self, decoding: int, budget: int) -> dict[int, int]:
        """How many ids of each prompt this step reads, at least one, by the job's key. Prompts with the fewest unread ids come first.

        Where requests come at any time and no row decodes, a step that ends short prompts reads only one id of each longer one, so that
        the first tokens of the short ones come soon.
        """
        shares: dict[int, int] = {}
        ended = 0  # the ids of prompts that end in this step
        for job in sorted((job for job in self._running if job.reading), key=lambda job: job.unread):
            if self._interrupt is not None and not decoding and 0 < ended < job.unread:
                budget = 0
            shares[job.key] = share = max(1, min(job.most, budget))
            budget -= share * job.price
            if share == job.unread:
                ended += share
        return shares

    def _offer(self) -> tuple[int, int]:
        """Make the guesses that the rows read in this step; returns how many rows decode, and how many guesses they read."""
        decoding = [row.guesses for job in self._running if not job.reading for row in job.next]
        for guesses in decoding:
            if guesses is not None:
                guesses.offer(len(decoding))
        if self._draft is not None:
            self._draft.offer([guesses for guesses in decoding if isinstance(guesses, DraftGuesses)])
        return len(decoding), sum(len(guesses.offered) for guesses in decoding if guesses is not None)

    def _enter(self, told: Told, budget: int) -> Job | None:
        """Start the next ready job of which this step can read a part: give it a row of the session.

        Returns None if there is no such job, or if there is no room for it yet.
        """
        while (job := self._next_ready(budget)) is not None:
            try:
                job.writer.result()
                if not self._fits(job):
                    return None
                self._waiting.remove(job)
                told += self._notes(job)
                self._open_row(job)
                self._make_room(job)
            except TgenError as error:
                if job in self._waiting:
                    self._waiting.remove(job)
                told.append((job.key, error))
                continue
            self._running.append(job)
            job.begun = time.perf_counter()
            return job
        return None

    def _next_ready(self, budget: int) -> Job | None:
        """The first waiting job whose writer is ready, and whose prompt has a share of the ids that this step may read.

        If no job runs, wait briefly for a writer: another thread may be compiling its constraint.
        """
        if not self._running and self._waiting:
            wait([job.writer for job in self._waiting], PATIENCE_SECONDS, FIRST_COMPLETED)
        if sum(job.rows for job in self._running) >= self._rows:
            return None
        reading = [job for job in self._running if job.reading]

        def has_share(job: Job) -> bool:
            return sum(other.most * other.price for other in reading if other.unread <= job.unread) < budget

        return next((job for job in self._waiting if job.writer.done() and has_share(job) and not self._is_being_read(job)), None)

    def _is_being_read(self, job: Job) -> bool:
        """Whether a running job is reading a beginning that this job's prompt shares: this job had better wait, then copy the row."""
        if not isinstance(job.prefix, SharedPrefixes):
            return False
        ids = job.prepared.ids[:-1]
        others = [one for one in self._running if one.reading and one.prefix is job.prefix and begin_alike(one.prepared.ids, ids)]
        if not others:
            return False
        known = max(job.prefix.longest(job.prepared.ids), self._alike(job)[1]) + WORTH_WAITING
        return any(common(other.prepared.ids, ids) >= max(known, other.done + 1) for other in others)

    def _alike(self, job: Job) -> tuple[Job | None, int]:
        """The running job with the same store of prefixes whose first row has read the most ids of a job's prompt, and how many.

        None and 0 if these are too few to be of use.
        """
        ids = job.prepared.ids[:-1]
        read = [(other.read_ids, other) for other in self._running if other.prefix is job.prefix]
        others = [(common(known, ids), other) for known, other in read if begin_alike(known, ids)]
        known, other = max(others, key=lambda found: found[0], default=(0, None))
        if other is not None:
            known = self._session.reachable(self._offset(other), known)
        return (other, known) if known >= LEAST else (None, 0)

    def _fits(self, job: Job) -> bool:
        """Whether rows and memory suffice for a job. A job that is alone always starts: if memory runs out, the pass fails."""
        ids, source = len(job.prepared.ids) + job.prepared.options.max_new_tokens, len(job.prepared.source or ())
        job.bytes = job.rows * self._executor.row_bytes(ids, source)
        if job.draft is not None:
            job.bytes += job.rows * job.draft.draft.executor.row_bytes(min(ids, job.draft.draft.context))
        if not self._running:
            return True
        if self._most_bytes is None:
            free = self._executor.free_bytes()
            self._most_bytes = float("inf") if free is None else CACHE_SHARE * free
        rows, taken = sum(one.rows for one in self._running), sum(one.bytes for one in self._running)
        if rows + job.rows > self._rows:
            return False
        kept = job.prefix if isinstance(job.prefix, SharedPrefixes) else None
        while taken + job.bytes + (kept.bytes if kept else 0) > self._most_bytes:
            if kept is None or not kept.drop_oldest():
                return False
        return True

    def _open_row(self, job: Job) -> None:
        """Add a row for a job's prompt to the session; the ids that the job's prefix has already read count as done.

        Where prefixes are shared, the row of a running job is copied if it has read more of the prompt.
        """
        session = None
        if isinstance(job.prefix, SharedPrefixes):
            parent, known = self._alike(job)
            if parent is not None and known > job.prefix.longest(job.prepared.ids):
                lengths = [length for one in self._running for length in one.lengths]
                self._session.select([*range(len(lengths)), self._offset(parent)])
                self._session.truncate([*lengths, known])
                job.known, job.done, job.lengths = known, known, [known]
                return
        if job.prefix is not None:
            session, job.known = job.prefix.take(job.prepared.ids)
            job.done, job.lengths = job.known, [job.known]
        if session is None:
            self._session.admit([job.prepared.source])
        else:
            self._session.join(session)

    def _make_room(self, job: Job) -> None:
        """Allocate the memory for a job's prompt before it is read, where requests may come at any time and no row decodes meanwhile."""
        if self._interrupt is not None and self._interruptible is not None and self.only_reads:
            self._interruptible.make_room(self._interrupt, sum(one.width for one in self._running), min(job.unread, TOGETHER))

    def _keep(self, job: Job, row: int) -> None:
        """Give a row's cache to the job's prefix: all ids that it has read if the job has one row, else the prompt that its rows share."""
        if job.prefix is not None:
            job.prefix.keep(self._session.split(row), job.read_ids)
            if job.rows == 1 and job.next and isinstance(guesses := job.next[0].guesses, DraftGuesses):
                guesses.remember()

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
