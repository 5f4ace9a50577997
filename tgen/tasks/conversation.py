"""A conversation with a chat model: its messages, the turns that fit the context, and the cache between turns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from collections.abc import Generator as Yields
from dataclasses import replace

from tgen.engine.generator import Generator
from tgen.errors import CapacityError
from tgen.events import Event, Finished, Note, Piece
from tgen.options import Resolved
from tgen.text.chat import ChatTemplate, Message


class Conversation:
    """Messages so far. A turn that fails leaves them as they were; one that is interrupted keeps what was said."""

    def __init__(self, generator: Generator, template: ChatTemplate, resolved: Resolved, system: str | None = None) -> None:
        """A reply may fill the context, unless the user or the model's folder sets a limit."""
        self._generator = generator
        self._template = template
        self._resolved = resolved
        if resolved.origins["max_new_tokens"] == "built-in":
            self._resolved = replace(resolved, options=replace(resolved.options, max_new_tokens=generator.context))
        self._prefix = generator.prefix()
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
        # These answers count as given here: with a seed, the next answer then has another random stream than they had.
        self._replies = max(self._replies, sum(message.role == "assistant" for message in self._turns))

    @property
    def system(self) -> str | None:
        """The system message, which the model reads first."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        """Raises UsageError if the template takes no system message."""
        check_system(self._template, text)
        self._system = text

    def clear(self) -> None:
        """Forget all but the system message."""
        self._turns, self._dropped, self._unanswered = [], 0, None

    def last_question(self) -> str | None:
        """The user's last message, None if there is none. The turn that it began is taken back."""
        if self._unanswered is not None:
            return self._unanswered
        places = [place for place, message in enumerate(self._turns) if message.role == "user"]
        if not places:
            return None
        question = self._turns[places[-1]].content
        del self._turns[places[-1] :]
        return question

    def reply(self, text: str, cancelled: Callable[[], bool] = lambda: False) -> Yields[Event, None, None]:
        """Add a user's message and stream the answer. Raises CapacityError if it does not fit, UsageError if the template refuses it."""
        before = self._turns
        self._turns = [*before, Message("user", text)]
        said: list[str] = []
        over = False
        try:
            ids = yield from self._fitting()
            for event in self._generator.run(ids, self._turn_options(), cancelled, prefix=self._prefix):
                if isinstance(event, Piece):
                    said.append(event.text)
                elif isinstance(event, Finished):
                    over = event.reason != "cancelled"
                yield event
                if isinstance(event, Finished) and event.reason == "length" and len(ids) + event.token_count >= self._generator.context:
                    yield Note(f"the reply was cut: the conversation fills the model's context of {self._generator.context} tokens")
        finally:
            # This also runs when the caller stops early.
            kept = over or any(said)
            self._unanswered = None if kept else text
            self._turns = [*self._turns, Message("assistant", "".join(said))] if kept else before

    def _turn_options(self) -> Resolved:
        """The options for one more reply: with a seed, each has one of its own, or `retry` would say the same again."""
        options, number = replace(self._resolved.options, overflow="shrink"), self._replies  # turns that do not fit were left out already
        self._replies += 1
        if options.seed is not None:
            options = replace(options, seed=(options.seed + number) % 2**64)
        return replace(self._resolved, options=options)

    def _fitting(self) -> Yields[Event, None, list[int]]:
        """The ids that the model reads: of the whole conversation, or under --overflow truncate-left of its newest turns."""
        context, options, before = self._generator.context, self._resolved.options, self._dropped
        ids = self._encode(self._dropped)
        if options.overflow != "truncate-left":
            if len(ids) >= context:
                hint = "/clear begins anew; --overflow truncate-left leaves out the oldest turns"
                raise CapacityError(f"the conversation has {len(ids)} tokens with this message, the model's context is {context}", hint)
            return ids
        if len(ids) + min(options.max_new_tokens, context // 4) <= context:
            return ids
        # Go down to half the context at once: each time turns are left out, the model has to read all the others again.
        starts = [place for place, message in enumerate(self._turns) if message.role == "user" and place > self._dropped]
        if starts:
            enough = bisect_left(starts, True, key=lambda start: len(self._encode(start)) <= context // 2)
            self._dropped = starts[min(enough, len(starts) - 1)]
            ids = self._encode(self._dropped)
        if len(ids) >= context:
            message = f"this message alone has {len(ids)} tokens with what goes before it, the model's context is {context}"
            self._dropped = before
            raise CapacityError(message, f"shorten it by {len(ids) - context + 1} tokens or more")
        if starts:
            yield Note(f"the conversation's first {self._dropped} messages are left out to fit the context of {context}")
        return ids

    def _encode(self, start: int) -> list[int]:
        return self._template.encode(self._generator.tokenizer, [*self._head(), *self._turns[start:]])[0]

    def _head(self) -> list[Message]:
        return [] if self._system is None else [Message("system", self._system)]


def check_system(template: ChatTemplate, text: str | None) -> None:
    """Render a conversation as small as can be. Raises UsageError if the template refuses a system message, CheckpointError."""
    head = [] if text is None else [Message("system", text)]
    template.render([*head, Message("user", "")])
