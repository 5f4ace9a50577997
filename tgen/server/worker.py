"""The one thread that runs models. Requests come to it through a queue, and its events go back to the thread of the connections."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count, islice
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from tgen.engine.generator import Generator
from tgen.engine.job import Job
from tgen.engine.request import Request
from tgen.engine.scheduler import Scheduler, Told
from tgen.engine.shared import SharedPrefixes
from tgen.errors import MemoryLimitError, TgenError
from tgen.events import Event, Finished, Piece, Reading
from tgen.executors.session import Interrupt
from tgen.sampling.sampler import Trace
from tgen.server.mailbox import Mailbox, Post
from tgen.server.wakeups import giving_way

T = TypeVar("T")
# The share of the free memory that kept rows of ended requests may take.
KEPT_SHARE = 0.25
# While no row decodes, the model waits this long for a request that is on its way, and this long in all for several that come one after
# another. Reading a request takes a millisecond if the model leaves a processor free, else several.
EXPECTED_SECONDS, GATHERED_SECONDS = 0.003, 0.02
# The loop takes this many turns from a connection that waits to be accepted to its first bytes.
LOOKS = 4


class Listener(Protocol):
    """Takes the events of jobs with their keys, all those of a step at once: a mailbox, or a queue for threads."""

    def put_nowait(self, item: Told, /) -> None: ...


class Engine:
    """A loaded model that generates text, and the scheduler of its requests."""

    def __init__(self, generator: Generator, rows: int) -> None:
        """At most `rows` rows run at once."""
        self.generator = generator
        self.rows = rows
        self.interrupt = Interrupt()
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget all requests, and all rows that were kept of ended ones."""
        executor = self.generator.executor
        free = executor.free_bytes()
        shares = self.generator.limits.answer_start is None  # an encoder-decoder's answers begin alike, but depend on their sources
        self._prefixes = SharedPrefixes(executor, float("inf") if free is None else KEPT_SHARE * free) if shares else None
        self.scheduler = Scheduler(executor, self.rows, draft=self.generator.draft, interrupt=self.interrupt)

    def job(self, request: Request, generator: Generator | None = None, watch: Callable[[Trace], None] | None = None) -> Job:
        """The job for a request, as this generator or another one of the model makes it. Several threads may ask. Raises TgenError.

        `watch` gets the first sample's draws, in the thread that runs the model.
        """
        with self._lock:
            return (generator or self.generator).job(request, watch, self._prefixes)


class Worker:
    """Runs engines by turns, one step of each, in its own thread."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._keys = count(1)
        self._listeners: dict[int, Listener] = {}
        self._held: dict[int, Told] = {}  # the events so far of jobs whose events are sent when a sample ends, by key
        self._running: list[Engine] = []  # the engines that have something to do
        self._post: Post | None = None
        self._coming = 0  # how many requests are on their way, or connections from which one may come
        self._heard = 0.0  # when one of them was last expected or came
        self._over = False
        self._posting = threading.Lock()
        self._raised: list[Interrupt] = []

    def start(self) -> None:
        """Start the thread; events go to the running loop."""
        self._post = Post(asyncio.get_running_loop(), self._deliver)
        threading.Thread(target=self._run, name="tgen-model", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end after its step."""
        self._inbox.put(self._end)

    def key(self) -> int:
        """A new key for a request."""
        return next(self._keys)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function between two steps. The future gets its result or its error."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self.arrived()
        self._inbox.put(run)
        return future

    def expect(self, *, surely: bool = True) -> None:
        """Note that a request is on its way. If it `surely` comes, interrupt the reading of prompts, so that it soon has a row."""
        with self._posting:
            self._coming, self._heard = self._coming + 1, time.perf_counter()
            if surely:
                self._interrupt(self._running)

    def arrived(self) -> None:
        """Note that an expected request has come, or will not come."""
        with self._posting:
            self._coming, self._heard = max(0, self._coming - 1), time.perf_counter()

    async def parts(self, engine: Engine, jobs: Sequence[Job], *, whole: bool = False) -> AsyncGenerator[list[tuple[int, Event]]]:
        """The events of these jobs as they come, each with the number of its job, until all samples have ended. Raises the first error.

        With `whole`, a job's events come all at once when one of its samples ends, because waking a connection for every token takes time
        from the model.

        Of many jobs, at most as many as the engine has rows wait or run at once, so that other requests come in between. However this
        generator ends, it cancels the jobs that have not ended.
        """
        if not self._running:
            self._look_around()
        mailbox = Mailbox()
        numbers = {job.key: number for number, job in enumerate(jobs)}
        left = iter(jobs)
        going: dict[int, int] = {}  # the samples that have not ended, by the keys of jobs that were added

        def add(count: int) -> None:
            new = list(islice(left, count))
            going.update((job.key, job.prepared.options.samples) for job in new)
            if new:  # adding no jobs would still interrupt a prompt that is being read
                self.add(engine, new, mailbox, whole=whole)

        add(engine.rows)
        try:
            while going:
                part: list[tuple[int, Event]] = []
                for key, event in await mailbox.get():
                    if isinstance(event, TgenError):
                        if part:
                            yield part
                        raise event
                    if isinstance(event, Finished):
                        going[key] -= 1
                        if not going[key]:
                            del going[key]
                            add(1)
                    part.append((numbers[key], event))
                yield part
        finally:
            self.drop(engine, going, numbers)

    def _look_around(self) -> None:
        """Before the model begins, let the loop look for requests that came while it read this one."""
        loop = asyncio.get_running_loop()

        def look(turns: int) -> None:
            if turns:
                loop.call_soon(look, turns - 1)
            else:
                self.arrived()
                self._inbox.put(lambda: None)  # wakes the model's thread

        self.expect(surely=False)
        look(LOOKS)

    def add(self, engine: Engine, jobs: Sequence[Job], listener: Listener, *, whole: bool = False) -> None:
        """Add jobs, whose events go to a listener until they are dropped; with `whole`, a job's events go there only when a sample ends."""
        self._listeners |= dict.fromkeys((job.key for job in jobs), listener)
        if whole:
            self._held |= {job.key: [] for job in jobs}
        self.arrived()
        self._ask(engine, lambda: self._add(engine, jobs))

    def drop(self, engine: Engine, going: Iterable[int], keys: Iterable[int]) -> None:
        """Cancel the jobs in `going`, and send no more events of the jobs in `keys`."""
        for key in keys:
            self._listeners.pop(key, None)
            self._held.pop(key, None)
        if cancelled := list(going):
            self._ask(engine, lambda: self._cancel(engine, cancelled))

    def _add(self, engine: Engine, jobs: Sequence[Job]) -> None:
        for job in jobs:
            engine.scheduler.add(job)
        if engine not in self._running:
            self._running.append(engine)

    def cancel(self, engine: Engine, key: int) -> None:
        """End a request now. Its listener still gets its last events."""
        self._ask(engine, lambda: self._cancel(engine, [key]))

    def _cancel(self, engine: Engine, keys: Iterable[int]) -> None:
        for key in keys:
            self._tell(engine.scheduler.cancel(key))

    def _end(self) -> None:
        self._over = True

    def _run(self) -> None:
        with giving_way():
            while not self._over:
                self._turn()

    def _turn(self) -> None:
        """Do what came, and a step of each engine."""
        for task in self._taken():
            try:
                task()
            except Exception:  # whatever it is, the other requests go on
                traceback.print_exc()
        for engine in [*self._running]:
            self._tell(self._step(engine))
            if engine.scheduler.idle:
                self._running.remove(engine)

    def _ask(self, engine: Engine, task: Callable[[], None]) -> None:
        """Queue a task that concerns an engine's requests, and interrupt the reading of prompts, so that it is soon done."""
        with self._posting:
            self._inbox.put(task)
            self._interrupt([engine, *self._running])

    def _interrupt(self, engines: Iterable[Engine]) -> None:
        for engine in engines:
            engine.interrupt.up()
            self._raised.append(engine.interrupt)

    def _taken(self) -> Iterator[Callable[[], None]]:
        """The tasks in the queue. Waits for one if no engine has anything to do, and briefly for requests that are on their way."""
        if not self._running:
            yield self._inbox.get()
        yield from self._gathered()
        with self._posting:  # a task is in the queue and its interrupts are up, or neither
            tasks = [self._inbox.get_nowait() for _ in range(self._inbox.qsize())]
            for interrupt in self._raised:
                interrupt.down()
            self._raised.clear()
        yield from tasks

    def _gathered(self) -> Iterator[Callable[[], None]]:
        """The tasks that come while requests are on their way and no row decodes, so that prompts are read together as a whole batch."""
        end = time.perf_counter() + GATHERED_SECONDS
        while self._coming and all(engine.scheduler.only_reads for engine in self._running):
            heard = self._heard
            left = min(end, heard + EXPECTED_SECONDS) - time.perf_counter()
            try:
                yield self._inbox.get(timeout=max(0.0, left))
            except Empty:
                if self._heard == heard or time.perf_counter() >= end:
                    self._coming = 0
                    return

    def _step(self, engine: Engine) -> Told:
        """One step. An error that belongs to no request ends all of this engine's requests, but no other engine's."""
        try:
            return [] if engine.scheduler.idle else engine.scheduler.step()
        except Exception as error:
            keys = [*engine.scheduler.running, *engine.scheduler.waiting]
            engine.reset()
            if isinstance(error, MemoryError):
                return [(key, MemoryLimitError("out of memory", "ask for less at once")) for key in keys]
            return [(key, TgenError(f"unexpected {type(error).__name__}: {error}", "this is a bug in tgen")) for key in keys]

    def _tell(self, told: Told) -> None:
        ready = [one for key, event in told for one in self._released(key, event)]
        if ready and self._post is not None:
            self._post.send(ready, {key for key, event in ready if not isinstance(event, Piece | Reading)})

    def _released(self, key: int, event: Event | TgenError) -> Told:
        """The events to send now: this one; or nothing, if the job's events are held back; or all held ones, if this one ends a sample."""
        if (held := self._held.get(key)) is None:
            return [(key, event)]
        held.append((key, event))
        if not isinstance(event, Finished | TgenError):
            return []
        released = held[:]
        held.clear()
        return released

    def _deliver(self, told: Told) -> int:
        parts: dict[Listener, Told] = {}
        for key, event in told:
            if (queue := self._listeners.get(key)) is not None:
                parts.setdefault(queue, []).append((key, event))
        for queue, part in sorted(parts.items(), key=lambda one: all(isinstance(event, Reading) for _, event in one[1])):
            queue.put_nowait(part)  # text comes before the progress of prompts, for which nobody waits
        return len(self._listeners)
