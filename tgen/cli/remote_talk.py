"""A conversation whose answers a server computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Yields
from contextlib import closing
from typing import Any

from tgen.cli.options import Asked
from tgen.cli.remote_client import Remote
from tgen.events import Event
from tgen.tasks.talk import Talk
from tgen.wire.events import read_event


class RemoteConversation(Talk):
    """Has the methods of a `Conversation`. The messages stay here, and each request carries them."""

    def __init__(self, remote: Remote, asked: Asked, arguments: Sequence[str], system: str | None) -> None:
        """`arguments` are those of --template-arg. Raises UsageError if the template refuses them or the system message."""
        super().__init__(system)
        self._remote = remote
        self._body = {"values": asked.values, "environment": asked.environment, "template_arg": list(arguments)}
        self.check(system)

    def check(self, system: str | None) -> None:
        """Raise UsageError if the template takes no system message."""
        list(self._remote.records("chat", self._asking(None, system)))

    def tokens(self) -> int:
        """How many tokens of the context the conversation fills now. Raises TgenError."""
        [record] = self._remote.records("chat", self._asking(None, self.system))
        return int(record["tokens"])

    def reply(self, text: str, cancelled: Callable[[], bool] = lambda: False) -> Yields[Event, None, None]:
        """Add a user's message and stream the answer. Raises what `Conversation.reply` raises."""
        yield from self._keeping(text, self._answer(self._asking(text, self.system), cancelled))

    def _answer(self, body: dict[str, Any], cancelled: Callable[[], bool]) -> Yields[Event, None, None]:
        self._replies += 1  # the answer may break off before the server has sent the new state
        with closing(self._remote.records("chat", body, cancelled)) as records:
            for record in records:
                if "state" in record:
                    self._dropped, self._replies = record["state"]["dropped"], record["state"]["replies"]
                else:
                    yield read_event(record)

    def _asking(self, text: str | None, system: str | None) -> dict[str, Any]:
        return {**self._body, "text": text, "state": self.state, "system": system}
