"""Ctrl-C and SIGTERM end the process at once, raise an exception, or set a flag that a loop reads.

A command chooses by how much work a sudden end would lose.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupts:
    """While entered, the first signal only makes `asked` return True. A second one raises, and so does one before `asked` was called."""

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

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            raise_for(number, frame)
        if self.exit_code is not None:
            raise_for(number)
        self.exit_code = EXIT_CODES[signal.Signals(number)]


def handle(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    """Let a signal call `handler`, unless the process was started to ignore it.

    A background job of a script must not stop at a Ctrl-C that is meant for the foreground job.
    """
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def leave_at_once() -> None:
    """From now on a signal ends the process. For times when no work has begun yet, or all work is done."""
    for number in EXIT_CODES:
        handle(number, leave)


def raise_exceptions() -> None:
    """From now on a signal raises KeyboardInterrupt or SystemExit, so that work that has begun can end in order."""
    for number in EXIT_CODES:
        handle(number, raise_for)
    sys.unraisablehook = _unraisable


def raise_for(number: int, frame: FrameType | None = None) -> None:
    """Raise the exception of a signal. During an import the process ends instead: modules may swallow the exception, or raise another."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave(number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(EXIT_CODES[signal.Signals(number)])


def leave(number: int, _: FrameType | None = None) -> NoReturn:
    """End the process at once, with the exit code of a signal."""
    os._exit(EXIT_CODES[signal.Signals(number)])


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python would swallow a signal's exception and go on, as in a `__del__`."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        leave(signal.SIGINT)
    if issubclass(unraisable.exc_type, SystemExit):
        leave(signal.SIGTERM)
    sys.__unraisablehook__(unraisable)
