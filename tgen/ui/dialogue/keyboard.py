"""Reads the messages of a person at a terminal: several lines, history and its search, completion, emacs or vi keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.filters import emacs_insert_mode, is_searching
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from tgen.ui.dialogue.completion import CommandCompleter, Takes
from tgen.ui.dialogue.history import KeptHistory
from tgen.ui.dialogue.lines import CONTINUED, PROMPT, QUOTES, Said, not_utf8, unquoted

Keys = Literal["auto", "emacs", "vi"]


class Keyboard:
    """A person at `terminal`, who sees what `screen` shows. Both are UTF-8 here, whatever the locale says."""

    typed = True

    def __init__(self, terminal: TextIO, screen: TextIO, history: Path | None, keys: Keys, commands: Mapping[str, Takes]) -> None:
        """`history` is the file that keeps messages for the next time; None keeps them for this conversation alone."""
        for stream in (terminal, screen):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(encoding="utf-8", errors="replace")
        self._offered = ""
        self._pending = False
        output = Vt100_Output.from_pty(screen, os.environ.get("TERM"), ColorDepth.DEPTH_1_BIT)
        output.enable_cpr = False  # asking where the cursor is shows a warning if no answer comes, and a late answer looks like typed text
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,  # a message may have several lines; the keys below say which one sends it
            prompt_continuation=CONTINUED,
            vi_mode=keys == "vi" or (keys == "auto" and _readline_has_vi_keys()),
            history=InMemoryHistory() if history is None else KeptHistory(history),
            enable_history_search=True,
            completer=CommandCompleter(commands),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,  # a menu would keep eight lines of the screen empty
            key_bindings=self._bindings(),
            enable_suspend=True,
            enable_open_in_editor=True,
            output=output,
            input=create_input(terminal),
        )

    def read(self) -> Said:
        """The next message. Raises EOFError, KeyboardInterrupt, UsageError."""
        offered, self._offered, self._pending = self._offered, "", False
        text = self._session.prompt(default=offered)
        try:
            text.encode("utf-8")
        except UnicodeError as error:
            raise not_utf8() from error
        return unquoted(text.removeprefix(QUOTES)) if text.startswith(QUOTES) else Said(text)

    def pending(self) -> bool:
        """Whether there was something on the line when Ctrl-C came."""
        return self._pending

    def offer(self, text: str) -> None:
        """Put a text on the next line."""
        self._offered = text

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add("enter", filter=~is_searching)
        def _(event: KeyPressEvent) -> None:
            """Send the message, unless its end says that it goes on."""
            buffer = event.current_buffer
            if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            elif buffer.text.startswith(QUOTES) and not buffer.text[len(QUOTES) :].endswith(QUOTES):
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @bindings.add("escape", "enter", filter=emacs_insert_mode)
        def _(event: KeyPressEvent) -> None:
            """Begin a line of the message."""
            event.current_buffer.insert_text("\n")

        @bindings.add("c-c", filter=~is_searching)  # in a search, Ctrl-C ends only the search
        def _(event: KeyPressEvent) -> None:
            """Give up the message."""
            self._pending = bool(event.app.current_buffer.text)
            event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

        return bindings


def _readline_has_vi_keys() -> bool:
    """Whether the user's settings of readline, which other programs at the terminal heed, ask for vi's keys."""
    try:
        path = os.environ.get("INPUTRC") or os.path.expanduser("~/.inputrc")
        asked = re.findall(r"^\s*set\s+editing-mode\s+(\w+)", Path(path).read_text("utf-8", "replace"), flags=re.MULTILINE)
    except (OSError, ValueError):
        return False
    return asked[-1:] == ["vi"]
