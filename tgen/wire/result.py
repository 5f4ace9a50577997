"""The result of `--json`: collects a generation's events, and writes one object after the last one."""

from __future__ import annotations

from tgen.events import Event
from tgen.ui.output import write_json


class JsonResult:
    """Takes the place of a text stream; `prefix` is put before each text (`--echo`)."""

    def __init__(self, model: str, prefix: str) -> None:
        self._model = model
        self._prefix = prefix
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event)

    def close(self) -> None:
        """Write the object on one line."""
        from tgen.wire.records import completion_object, timings

        write_json({**completion_object(self._model, self._events, self._prefix), "timings": timings(self._events)})

    def abandon(self) -> None:
        """Write nothing after an error, because half an object would help nobody."""
