"""A progress bar on stderr; silent unless stderr is a terminal. Knows numbers only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tgen.ui.terminal import console, is_terminal


@contextmanager
def counting(what: str, total: int | None, *, writing: bool = False) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how much more is done; shows what, how far and how long still. A total of None is not known.

    Work that is `writing` to stdout meanwhile shows nothing where that is a terminal too: there the text itself says how far it is.
    """
    if not is_terminal(sys.stderr) or (writing and is_terminal(sys.stdout)):
        yield _ignore
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr, "auto"), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def _ignore(_: int) -> None:
    """Nobody is looking."""
