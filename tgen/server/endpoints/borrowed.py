"""A generator whose requests run in the server's batch, for tasks that are written as loops; each task runs in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from collections.abc import Generator as Yields
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from tgen.engine.generator import Generator, Take
from tgen.engine.job import Job
from tgen.engine.prefix import Prefix
from tgen.engine.request import Refused, Request
from tgen.engine.scheduler import Told
from tgen.errors import TgenError
from tgen.events import Event, Finished
from tgen.options import Resolved
from tgen.sampling.sampler import Trace
from tgen.server.worker import Engine, Worker

T = TypeVar("T")
THREADS = ThreadPoolExecutor(32, "tgen-tasks")
PATIENCE_SECONDS = 0.1
OVER = object()


class GoneError(Exception):
    """Nobody waits for the task any more."""


class Borrowed(Generator):
    """A generator with an engine's model. `gone` ends the task; `stopped` ends its request, as Ctrl-C would."""

    def __init__(self, worker: Worker, engine: Engine) -> None:
        own = engine.generator
        limits = own.limits
        super().__init__(
            own.executor, own.tokenizer, context=limits.context, vocab=limits.vocab, end_tokens=own.end_tokens,
            start_token=limits.start_token, answer_start=limits.answer_start, defaults=own.defaults, guess=own.guess, draft=own.draft,
        )  # fmt: skip
        self.gone = threading.Event()
        self.stopped = threading.Event()
        self._worker = worker
        self._engine = engine

    def run(
        self,
        prompt: str | Sequence[int],
        resolved: Resolved,
        cancelled: Callable[[], bool] = lambda: False,
        watch: Callable[[Trace], None] | None = None,
        prefix: Prefix | None = None,  # noqa: ARG002
    ) -> Iterator[Event]:
        """The events of a request; the server's own prefixes take the place of `prefix`. Raises TgenError, GoneError."""
        job = self._engine.job(Request(self._worker.key(), prompt, resolved), self, watch)
        for _, event in self._events([job], cancelled):
            if isinstance(event, TgenError):
                raise event
            yield event

    def run_many(self, take: Take, rows: int, cancelled: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Event | TgenError]]:  # noqa: ARG002
        """The events of all requests, which are taken at once. Raises GoneError."""
        names: dict[int, int] = {}
        jobs = []
        while (request := take(True)) is not None:
            assert not isinstance(request, Refused)
            key = self._worker.key()
            names[key] = request.key
            jobs.append(self._engine.job(Request(key, request.prompt, request.resolved), self))
        for key, event in self._events(jobs, cancelled):
            yield names[key], event

    def by_turns(self, parts: Iterable[T]) -> Iterator[T]:
        """The parts of a computation, each between two steps of the engines. Raises GoneError."""
        iterator = iter(parts)
        while (part := self._worker.call(lambda: next(iterator, OVER)).result()) is not OVER:
            yield part  # type: ignore[misc]
            if self.gone.is_set():
                raise GoneError

    def _events(self, jobs: Sequence[Job], cancelled: Callable[[], bool]) -> Iterator[tuple[int, Event | TgenError]]:
        queue: SimpleQueue[Told] = SimpleQueue()
        going = {job.key: job.prepared.options.samples for job in jobs}
        asked = False
        self._worker.add(self._engine, jobs, queue)
        try:
            while going:
                if self.gone.is_set():
                    raise GoneError
                if not asked and (self.stopped.is_set() or cancelled()):
                    asked = True
                    for key in going:
                        self._worker.cancel(self._engine, key)
                try:
                    told = queue.get(timeout=PATIENCE_SECONDS)
                except Empty:
                    continue
                for key, event in told:
                    going[key] -= isinstance(event, Finished)
                    if isinstance(event, TgenError) or not going[key]:
                        del going[key]
                    yield key, event
        finally:
            self._worker.drop(self._engine, going, [job.key for job in jobs])


async def in_thread(records: Yields[dict[str, Any], None, None], gone: threading.Event) -> AsyncGenerator[dict[str, Any]]:
    """The records of a task, which a thread runs. `gone` is set when nobody waits for them any more."""
    loop = asyncio.get_running_loop()
    try:
        while (record := await loop.run_in_executor(THREADS, next, records, None)) is not None:
            yield record
    finally:
        gone.set()
        with suppress(ValueError):  # the task is running, and will notice `gone`
            records.close()
