"""Finds stop strings in a stream of text, also where they span several pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through until a stop string appears; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show, and whether a stop string was met: it and all after it are dropped.

        The stop string that is complete first wins, so the result does not depend on the pieces in which the text arrives.
        """
        self._held += text
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            return self._held[: min(found)[1]], True
        safe = len(self._held) - self._possible_start()
        shown, self._held = self._held[:safe], self._held[safe:]
        return shown, False

    def flush(self) -> str:
        """The text that was held back, when no more text will come."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self) -> int:
        """The length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=0)
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
