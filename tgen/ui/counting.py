"""A progress bar on stderr; silent unless stderr is a terminal. Knows numbers only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tgen.ui.terminal import console, is_terminal


class Count(Protocol):
    """Told how much more is done, and what to say beside the bar."""

    def __call__(self, done: int, said: str = "") -> None: ...


@contextmanager
def counting(what: str, total: int | None, *, start: int = 0, writing: bool = False) -> Iterator[Count]:
    """Yields a function that is told how much more is done; shows what, how far and how long still. A total of None is not known.

    Work that is `writing` to stdout meanwhile shows nothing where that is a terminal too: there the text itself says how far it is.
    """
    if not is_terminal(sys.stderr) or (writing and is_terminal(sys.stdout)):
        yield _ignore
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    said = TextColumn("{task.fields[said]}")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), said, TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr, "auto"), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=start, said="")
        yield lambda done, said="": progress.update(task, advance=done, said=said)


def _ignore(done: int, said: str = "") -> None:
    """Nobody is looking."""
