"""Brings events from the thread that runs models to the connections that wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from tgen.engine.scheduler import Told

# While many texts are written at once, a connection gets new text at most this often. Nobody reads faster, and a connection that wakes up
# for every token takes time from the model.
SELDOM_SECONDS = 1 / 30


class Mailbox:
    """The events for a connection. `get` returns all new ones together, so a connection that is behind has fewer things to do, not more."""

    def __init__(self) -> None:
        self._held: Told = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, told: Told) -> None:
        """Add events, in the thread of the loop."""
        self._held += told
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Told:
        """All new events; it waits until there are some."""
        if not self._held:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        held, self._held = self._held, []
        return held


class Post:
    """Takes events from another thread to the thread of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Told], bool]) -> None:
        """The loop calls `deliver` with events. `deliver` returns whether later events that are not urgent may wait a little."""
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._bag: Told = []
        self._coming = False  # whether the loop will look into the bag by itself

    def send(self, told: Told, *, urgent: bool) -> None:
        """Send events from any thread: now, or a little later if other events were sent just before and these are not urgent."""
        with self._lock:
            self._bag += told
            if self._coming and not urgent:
                return
            wake, self._coming = self._come if not self._coming else self._empty, True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(wake)

    def _come(self) -> None:
        """Deliver the events in the bag, and look again soon if later ones may wait."""
        while (told := self._taken()) is not None:
            if self._deliver(told):
                self._loop.call_later(SELDOM_SECONDS, self._come)
                return

    def _taken(self) -> Told | None:
        """The events in the bag; None if there are none. Then the loop looks again only when something is sent."""
        with self._lock:
            told, self._bag = self._bag, []
            self._coming = bool(told)
            return told or None

    def _empty(self) -> None:
        """Deliver the events in the bag at once, because one of them is urgent."""
        with self._lock:
            told, self._bag = self._bag, []
        self._deliver(told)
