"""Brings events from the thread that runs models to the connections that wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Set
from contextlib import suppress

from tgen.engine.scheduler import Told

# Where more than FEW requests hear of new text, all of them are woken again after so many seconds for each, but LONGEST at most: to wake a
# connection for every token takes time from the model, and nobody reads faster.
FEW, EACH_SECONDS, LONGEST_SECONDS = 4, 0.004, 0.1


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

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Told], int]) -> None:
        """The loop calls `deliver` with events; it returns how many requests hear events."""
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._bag: Told = []
        self._urgent: set[int] = set()  # the keys whose events the loop was woken for
        self._coming = False  # whether the loop will look into the bag by itself

    def send(self, told: Told, urgent: Set[int] = frozenset()) -> None:
        """Send events from any thread: now, or a little later if others were sent just before and their keys are not `urgent`."""
        with self._lock:
            self._bag += told
            if self._coming and not urgent:
                return
            self._urgent |= urgent
            wake, self._coming = self._come if not self._coming else self._hurry, True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(wake)

    def _come(self) -> None:
        """Deliver the events in the bag, and look again soon if later ones may wait."""
        while (told := self._taken()) is not None:
            if (requests := self._deliver(told)) > FEW:
                self._loop.call_later(min(EACH_SECONDS * requests, LONGEST_SECONDS), self._come)
                return

    def _taken(self) -> Told | None:
        """The events in the bag; None if there are none. Then the loop looks again only when something is sent."""
        with self._lock:
            told, self._bag = self._bag, []
            self._coming = bool(told)
            return told or None

    def _hurry(self) -> None:
        """Deliver what is urgent, with what came before it for the same keys."""
        with self._lock:
            told, self._bag = [one for one in self._bag if one[0] in self._urgent], [one for one in self._bag if one[0] not in self._urgent]
            self._urgent.clear()
        self._deliver(told)
