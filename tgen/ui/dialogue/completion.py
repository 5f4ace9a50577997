"""What the Tab key adds to a command: its name, a file, or one of the names that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

# What a command takes: nothing that can be completed, a file, or one of some names.
Takes = Literal["text", "file"] | Callable[[], Iterable[str]]


class CommandCompleter(Completer):
    """Completes commands, which begin with a slash and stand on one line; other text it leaves alone."""

    def __init__(self, commands: Mapping[str, Takes]) -> None:
        self._commands = commands
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand in the place of the word before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, word = text[1:].partition(" ")
        if not space:
            yield from (Completion(f"{one} ", -len(name), display=f"/{one}") for one in self._commands if one.startswith(name))
            return
        takes = self._commands.get(name, "text")
        if takes == "file":
            yield from self._files.get_completions(Document(word), complete_event)
        elif not isinstance(takes, str):
            yield from (Completion(one, -len(word)) for one in takes() if one.startswith(word))
