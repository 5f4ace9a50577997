"""A progress bar on stderr. It is shown only where stderr is a terminal, and not under --quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tgen.ui import messages
from tgen.ui.terminal import console, is_terminal


class Bar:
    """Shows how much of the work is done, a word beside it, and the time that is left. It disappears when it is stopped."""

    def __init__(self, what: str, total: int | None, start: int = 0, *, of_bytes: bool = False) -> None:
        """`total` is None if it is unknown; `of_bytes` says that it counts bytes."""
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        said = TextColumn("{task.fields[said]}")
        count = DownloadColumn() if of_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), count, said, TimeRemainingColumn())
        self._progress = Progress(*columns, console=console(sys.stderr, "auto"), transient=True)
        self._task = self._progress.add_task(what, total=total, completed=start, said="")
        self._progress.start()

    def add(self, done: int) -> None:
        """Count this much more as done."""
        self._progress.update(self._task, advance=done)

    def reach(self, done: int, said: str = "") -> None:
        """Set how much is done in all."""
        self._progress.update(self._task, completed=done, said=said)

    def stop(self) -> None:
        """Remove the bar from the screen."""
        self._progress.stop()


class NoBar:
    """Takes the place of a bar where no person watches, and shows nothing."""

    def add(self, done: int) -> None:
        """Show nothing."""

    def reach(self, done: int, said: str = "") -> None:
        """Show nothing."""


def is_watched() -> bool:
    """Whether somebody can see the progress, and wants to."""
    return is_terminal(sys.stderr) and not messages.is_quiet()


@contextmanager
def counting(what: str, total: int | None, *, start: int = 0, writing: bool = False, of_bytes: bool = False) -> Iterator[Bar | NoBar]:
    """Show a bar as long as the work goes on.

    Work that is `writing` to stdout has no bar where stdout is a terminal too: the text itself shows how far the work is.
    """
    if not is_watched() or (writing and is_terminal(sys.stdout)):
        yield NoBar()
        return
    bar = Bar(what, total, start, of_bytes=of_bytes)
    try:
        yield bar
    finally:
        bar.stop()
