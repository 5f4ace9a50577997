"""Where a connection waits for what the thread that runs models tells it."""

from __future__ import annotations

import asyncio

from tgen.engine.scheduler import Told


class Mailbox:
    """What came since one last looked comes together: a connection that is behind has fewer things to do, not more."""

    def __init__(self) -> None:
        self._held: Told = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, told: Told) -> None:
        """Add events, in the thread of the loop."""
        self._held += told
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Told:
        """All that came; waits until something has come."""
        if not self._held:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        held, self._held = self._held, []
        return held
