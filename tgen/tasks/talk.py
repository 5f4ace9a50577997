"""The messages of a conversation. This module knows no model."""

from __future__ import annotations

from collections.abc import Generator as Yields
from collections.abc import Iterable, Sequence
from typing import Any

from tgen.events import Event, Finished, Piece
from tgen.text.chat import Message, read_messages


class Talk:
    """The messages so far, and what else later answers depend on."""

    def __init__(self, system: str | None = None) -> None:
        self._turns: list[Message] = []
        self._system = system
        self._dropped = 0
        self._replies = 0
        self._unanswered: str | None = None

    @property
    def messages(self) -> list[Message]:
        """All messages, a system message first if there is one."""
        return [*self._head(), *self._turns]

    @messages.setter
    def messages(self, messages: Sequence[Message]) -> None:
        has_system = bool(messages) and messages[0].role == "system"
        self._system = messages[0].content if has_system else None
        self.clear()
        self._turns = list(messages[has_system:])
        # Count these answers as if this conversation had written them: with a seed, the next answer then draws from a new random stream.
        self._replies = max(self._replies, sum(message.role == "assistant" for message in self._turns))

    @property
    def system(self) -> str | None:
        """The system message, which the model reads first."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        """Raises UsageError if the template takes no system message."""
        self.check(text)
        self._system = text

    def check(self, system: str | None) -> None:
        """Raise UsageError if the model takes no system message."""

    def clear(self) -> None:
        """Forget all but the system message."""
        self._turns, self._dropped, self._unanswered = [], 0, None

    def last_answer(self) -> str | None:
        """The model's last message, None if there is none."""
        return next((message.content for message in reversed(self._turns) if message.role == "assistant"), None)

    def undo(self) -> str | None:
        """Take back the user's last message with the answer, and return the message; None if there is none."""
        question = self.take_back()
        self._unanswered = None
        return question

    def question(self) -> str | None:
        """The user's last message, even if its answer failed; None if there is none."""
        asked = (message.content for message in reversed(self._turns) if message.role == "user")
        return next(asked, None) if self._unanswered is None else self._unanswered

    def take_back(self) -> str | None:
        """Remove the turn of the user's last message, and return the message, so that it can be asked again; None if there is none."""
        question = self.question()
        if self._unanswered is None and question is not None:
            del self._turns[max(place for place, message in enumerate(self._turns) if message.role == "user") :]
        return question

    def _keeping(self, text: str, events: Iterable[Event]) -> Yields[Event, None, None]:
        """The events of the answer to a message. Both are kept if the answer ended or has some text; else the message is unanswered."""
        before = self._turns
        self._turns = [*before, Message("user", text)]
        said: list[str] = []
        over = False
        try:
            for event in events:
                if isinstance(event, Piece):
                    said.append(event.text)
                elif isinstance(event, Finished):
                    over = event.reason != "cancelled"
                yield event
        finally:
            kept = over or any(said)
            self._unanswered = None if kept else text
            self._turns = [*self._turns, Message("assistant", "".join(said))] if kept else before

    @property
    def state(self) -> dict[str, Any]:
        """The whole conversation as a JSON object."""
        turns = [message_record(message) for message in self._turns]
        counts = {"dropped": self._dropped, "replies": self._replies}
        return {"turns": turns, "system": self._system, **counts, "unanswered": self._unanswered}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._turns = read_messages(state["turns"])
        self._system, self._unanswered = state["system"], state["unanswered"]
        self._dropped, self._replies = state["dropped"], state["replies"]

    def _head(self) -> list[Message]:
        return [] if self._system is None else [Message("system", self._system)]


def message_record(message: Message) -> dict[str, Any]:
    """A message as a JSON object."""
    return {"role": message.role, "content": message.content, **message.extra}
