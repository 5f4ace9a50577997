"""Shows a training run: a progress bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tgen.events import Evaluated, Note, Sampled, Trained, TrainingEvent
from tgen.ui import messages
from tgen.ui.counting import is_watched
from tgen.ui.harmless import harmless
from tgen.ui.terminal import console, print_exactly

LINE_SECONDS = 30.0


class TrainingView:
    """Shows events on stderr, because training writes no data to stdout."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._last_line = time.monotonic()

    def __enter__(self) -> TrainingView:
        if is_watched() and os.environ.get("TERM") != "dumb":
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[status]}"))
            self._progress = Progress(*columns, console=console(sys.stderr, "auto"), transient=True)
            self._progress.start()
            self._task = self._progress.add_task("training", total=1.0, status="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def add(self, event: TrainingEvent) -> None:
        """Show an event."""
        match event:
            case Trained():
                self._step(event)
            case Evaluated():
                reached = f"step {event.step:,}, {event.tokens:,} tokens"
                self.say(f"{reached}: loss {event.train_loss:.3f}, {event.bits_per_byte:.3f} bits per byte held back")
            case Sampled():
                self.say("  " + f"{event.prompt}{' -> ' if event.answer else ''}{event.text}".replace("\n", " / "))
            case Note():
                self.say(event.text)

    def say(self, text: str) -> None:
        """Show a line that stays, above the progress bar if there is one."""
        if self._progress is not None:
            print_exactly(self._progress.console, f"{harmless(text)}\n", "dim")
        else:
            messages.dim(text)

    def _step(self, event: Trained) -> None:
        steps = f"/{event.steps:,}" if event.steps else ""
        speed = f"{event.tokens_per_second:,.0f} tokens/s" if event.tokens_per_second == event.tokens_per_second else "-"
        status = f"step {event.step:,}{steps}  loss {event.loss:.3f}  {speed}  {duration(event.seconds_left)} left"
        if self._progress is not None:
            self._progress.update(self._task, completed=event.share, status=status)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            messages.dim(f"{event.share:4.0%}  {status}")


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds; a dash for NaN."""
    if seconds != seconds:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
