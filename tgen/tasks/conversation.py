"""A conversation with a chat model: the turns that fit the context, and the cache between turns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Generator as Yields
from dataclasses import replace

from tgen.engine.generator import Generator
from tgen.errors import CapacityError
from tgen.events import Event, Finished, Note
from tgen.options import Resolved
from tgen.tasks.talk import Talk
from tgen.text.chat import ChatTemplate, Message
from tgen.text.reasoning import reasoning_of


class Conversation(Talk):
    """A conversation that a model continues.

    If a turn fails or is interrupted before its first text, the messages stay as they were. After that, the text so far is kept.
    """

    def __init__(self, generator: Generator, template: ChatTemplate, resolved: Resolved, system: str | None = None) -> None:
        """A reply may fill the context, unless the user or the model's folder sets a limit."""
        super().__init__(system)
        self._generator = generator
        self._template = template
        self._resolved = resolved
        if resolved.origins["max_new_tokens"] == "built-in":
            self._resolved = replace(resolved, options=replace(resolved.options, max_new_tokens=generator.context))
        self._prefix = generator.prefix()

    def check(self, system: str | None) -> None:
        """Raise UsageError if the template takes no system message."""
        check_system(self._template, system)

    def tokens(self) -> int:
        """The tokens of the context that the conversation fills now, with the beginning of an answer. Raises the errors of `reply`."""
        return len(self._encode(self._dropped)) if self._turns else 0

    def reply(self, text: str, cancelled: Callable[[], bool] = lambda: False) -> Yields[Event, None, None]:
        """Add a user's message and stream the answer. Raises CapacityError if it does not fit, UsageError if the template refuses it."""
        yield from self._keeping(text, self._answer(cancelled))

    def _answer(self, cancelled: Callable[[], bool]) -> Yields[Event, None, None]:
        """The events of an answer to the messages."""
        ids = yield from self._fitting()
        reasoning = reasoning_of(self._generator.tokenizer, ids, self._template.source)
        for event in self._generator.run(ids, self._turn_options(), cancelled, prefix=self._prefix):
            yield from reasoning.feed(event)
            if isinstance(event, Finished) and event.reason == "length" and len(ids) + event.token_count >= self._generator.context:
                yield Note(f"the reply was cut: the conversation fills the model's context of {self._generator.context} tokens")

    def _turn_options(self) -> Resolved:
        """The options for one more reply. If there is a seed, each reply gets its own, because `retry` would otherwise repeat the reply."""
        options, number = replace(self._resolved.options, overflow="shrink"), self._replies  # turns that do not fit were left out already
        self._replies += 1
        if options.seed is not None:
            options = replace(options, seed=(options.seed + number) % 2**64)
        return replace(self._resolved, options=options)

    def _fitting(self) -> Yields[Event, None, list[int]]:
        """The ids that the model reads: those of the whole conversation, or with --overflow truncate-left those of its newest turns."""
        context, options, before = self._generator.context, self._resolved.options, self._dropped
        ids = self._encode(self._dropped)
        if options.overflow != "truncate-left":
            if len(ids) >= context:
                hint = "begin a new conversation (/clear at a terminal), or use --overflow truncate-left, which leaves out the oldest turns"
                raise CapacityError(f"the conversation has {len(ids)} tokens with this message, the model's context is {context}", hint)
            return ids
        if len(ids) + min(options.max_new_tokens, context // 4) <= context:
            return ids
        # Go down to half the context at once, because the model must read all other turns again whenever some are left out.
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


def check_system(template: ChatTemplate, text: str | None) -> None:
    """Render the smallest conversation. Raises UsageError if the template refuses a system message, CheckpointError if it is damaged."""
    head = [] if text is None else [Message("system", text)]
    template.render([*head, Message("user", "")])
