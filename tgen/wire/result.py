"""A generation as one JSON object, with the field names of OpenAI's objects. Knows events, no model."""

from __future__ import annotations

from typing import Any

from tgen.events import Event, Finished, Note, Piece, Started, Token
from tgen.ui.output import write_json


class Completion:
    """Collects the events of one generation."""

    def __init__(self, model: str, prefix: str) -> None:
        """`prefix` is put before each text (`--echo`)."""
        self._model = model
        self._prefix = prefix
        self._started = Started(0, 0, 0)
        self._texts: dict[int, list[str]] = {}
        self._tokens: dict[int, list[Token]] = {}
        self._finished: dict[int, Finished] = {}
        self._notes: list[str] = []

    def add(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Started):
            self._started = event
        elif isinstance(event, Piece):
            self._texts.setdefault(event.index, []).append(event.text)
            self._tokens.setdefault(event.index, []).extend(event.tokens)
        elif isinstance(event, Finished):
            self._finished[event.index] = event
        elif isinstance(event, Note):
            self._notes.append(event.text)

    @property
    def finished(self) -> int:
        """How many samples have ended."""
        return len(self._finished)

    @property
    def tokens(self) -> int:
        """How many tokens were written, in all samples."""
        return sum(event.token_count for event in self._finished.values())

    def object(self, *, chat: bool = False) -> dict[str, Any]:
        """The object, which depends on nothing but what was generated. A chat's texts are messages."""
        done = sorted(self._finished.values(), key=lambda event: event.index)
        choices = [self._choice(event) for event in done]
        if chat:
            choices = [{**rest, "message": {"role": "assistant", "content": text}} for rest, text in ((c, c.pop("text")) for c in choices)]
        return {
            "model": self._model,
            "choices": choices,
            "usage": {
                "prompt_tokens": self._started.prompt_tokens,
                "completion_tokens": self.tokens,
                "total_tokens": self._started.prompt_tokens + self.tokens,
                **self._cached(),
            },
            "seed": self._started.seed,
            **({"warnings": self._notes} if self._notes else {}),
        }

    def timings(self) -> dict[str, Any]:
        """How long it took."""
        done = self._finished.values()
        seconds = max((event.decode_seconds for event in done), default=0.0)
        return {
            "prefill_seconds": round(max((event.prefill_seconds for event in done), default=0.0), 6),
            "decode_seconds": round(seconds, 6),
            "tokens_per_second": round(self.tokens / seconds, 2) if seconds else None,
        }

    def _cached(self) -> dict[str, Any]:
        """How much of the prompt was read in another run, if any."""
        cached = self._started.cached_tokens
        return {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}

    def _choice(self, event: Finished) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": event.index,
            "text": self._prefix + "".join(self._texts.get(event.index, [])),
            "finish_reason": event.reason,
        }
        tokens = self._tokens.get(event.index)
        if tokens:
            choice["tokens"] = [token.score.id for token in tokens]
            choice["logprobs"] = {
                "tokens": [token.score.text for token in tokens],
                "token_logprobs": [token.score.logprob for token in tokens],
                "top_logprobs": [[{"token": s.text, "id": s.id, "logprob": s.logprob} for s in token.alternatives] for token in tokens],
            }
        return choice


class JsonResult(Completion):
    """Writes the object to stdout when all events have come."""

    def close(self) -> None:
        """Write the object, on a line of its own."""
        write_json({**self.object(), "timings": self.timings()})

    def abandon(self) -> None:
        """An error came: half an object would help nobody."""
