"""Counts what the server does, and writes it in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tgen.events import Event, Finished, Started

HELP = {
    "tgen_requests_total": ("counter", "Requests that ended, by endpoint and status; 499 is a client that closed the connection."),
    "tgen_request_seconds_sum": ("counter", "Seconds that requests took, by endpoint."),
    "tgen_prompt_tokens_total": ("counter", "Tokens of prompts, including those that a cache held."),
    "tgen_cached_tokens_total": ("counter", "Tokens of prompts that a cache held."),
    "tgen_generated_tokens_total": ("counter", "Tokens that were written."),
    "tgen_guessed_tokens_total": ("counter", "Tokens that were guessed ahead of the model."),
    "tgen_guessed_right_total": ("counter", "Guesses that were right."),
    "tgen_first_token_seconds_sum": ("counter", "Seconds until the first token could be drawn."),
    "tgen_first_token_seconds_count": ("counter", "Texts that were begun."),
    "tgen_decode_seconds_sum": ("counter", "Seconds from the first token to the last."),
    "tgen_requests_running": ("gauge", "Prompts that are being read or continued."),
    "tgen_requests_waiting": ("gauge", "Prompts that wait for a row."),
    "tgen_models_loaded": ("gauge", "Models whose weights are in memory."),
}


class Metrics:
    """The counts so far."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._floats: dict[str, float] = {}

    def ended(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that ended."""
        self._values[f'tgen_requests_total{{endpoint="{endpoint}",status="{status}"}}'] += 1
        self._add(f'tgen_request_seconds_sum{{endpoint="{endpoint}"}}', seconds)

    def heard(self, event: Event) -> None:
        """Count the tokens and seconds that an event reports."""
        if isinstance(event, Started):
            self._values["tgen_prompt_tokens_total"] += event.prompt_tokens
            self._values["tgen_cached_tokens_total"] += event.cached_tokens
        elif isinstance(event, Finished):
            self._values["tgen_generated_tokens_total"] += event.token_count
            self._values["tgen_guessed_tokens_total"] += event.guessed
            self._values["tgen_guessed_right_total"] += event.guessed_right
            self._values["tgen_first_token_seconds_count"] += 1
            self._add("tgen_first_token_seconds_sum", event.prefill_seconds)
            self._add("tgen_decode_seconds_sum", event.decode_seconds)

    def text(self, gauges: Iterable[tuple[str, int]]) -> str:
        """All counts, and the gauges of this moment."""
        return "".join(f"{line}\n" for line in self._lines({**self._values, **self._floats, **dict(gauges)}))

    def _add(self, name: str, value: float) -> None:
        self._floats[name] = self._floats.get(name, 0.0) + value

    @staticmethod
    def _lines(values: dict[str, float]) -> Iterator[str]:
        for name, (kind, words) in HELP.items():
            yield f"# HELP {name} {words}"
            yield f"# TYPE {name} {kind}"
            labelled = sorted(key for key in values if key.startswith(f"{name}{{"))
            for key in labelled if "{" in "".join(labelled) else [name]:
                yield f"{key} {values.get(key, 0):.10g}"
