"""Ctrl-C and SIGTERM as a question the loop can ask, instead of an exception in the middle of a token. Knows no model."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupts:
    """While entered, a first signal is remembered if someone asks for it, and a second one, or one before anybody asked, raises."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in EXIT_CODES:
            self._previous[number] = signal.getsignal(number)
            handle(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether to stop."""
        self._asked = True
        return self.exit_code is not None

    def _remember(self, number: int, _: FrameType | None) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code is not None or not self._asked:
            raise_for(number)
        self.exit_code = code


def handle(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    """Let a signal call `handler`, unless the process was started to ignore it.

    A script's background job shall not hear the Ctrl-C that is meant for what runs in front.
    """
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def raise_for(number: int, _: FrameType | None = None) -> None:
    """What a signal means where nothing needs to be kept."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(EXIT_CODES[signal.Signals(number)])
