"""A progress bar on stderr; silent unless stderr is a terminal, and under --quiet. Knows numbers only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tgen.ui import messages
from tgen.ui.terminal import console, is_terminal


class Bar:
    """What is done of how much, with a word beside it and how long it will take still. Goes away when it is stopped."""

    def __init__(self, what: str, total: int | None, start: int = 0) -> None:
        """A total of None is not known."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        said = TextColumn("{task.fields[said]}")
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), said, TimeRemainingColumn())
        self._progress = Progress(*columns, console=console(sys.stderr, "auto"), transient=True)
        self._task = self._progress.add_task(what, total=total, completed=start, said="")
        self._progress.start()

    def add(self, done: int) -> None:
        """So much more is done."""
        self._progress.update(self._task, advance=done)

    def reach(self, done: int, said: str = "") -> None:
        """So much is done in all."""
        self._progress.update(self._task, completed=done, said=said)

    def stop(self) -> None:
        """Take it off the screen."""
        self._progress.stop()


class NoBar:
    """In place of a bar where nobody is looking."""

    def add(self, done: int) -> None:
        """Nothing is shown."""

    def reach(self, done: int, said: str = "") -> None:
        """Nothing is shown."""


def is_watched() -> bool:
    """Whether there is somebody to show progress to."""
    return is_terminal(sys.stderr) and not messages.is_quiet()


@contextmanager
def counting(what: str, total: int | None, *, start: int = 0, writing: bool = False) -> Iterator[Bar | NoBar]:
    """A bar for as long as the work goes on.

    Work that is `writing` to stdout meanwhile shows nothing where that is a terminal too: there the text itself says how far it is.
    """
    if not is_watched() or (writing and is_terminal(sys.stdout)):
        yield NoBar()
        return
    bar = Bar(what, total, start)
    try:
        yield bar
    finally:
        bar.stop()
