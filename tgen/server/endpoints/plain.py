"""/completion: continues a prompt, with the requests and answers of llama.cpp's server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tgen.events import Event, Finished, Piece, Started, Token
from tgen.server.calls import Answer, Call
from tgen.server.endpoints.generating import Texts, make_jobs, resolved_options
from tgen.server.sending import sse
from tgen.wire.records import chat_logprobs
from tgen.wire.requests import read_body, take_flag, take_number, take_texts

MOST_PROMPTS = 2048


async def continued(call: Call) -> Answer:
    """Answer a request for the continuation of a prompt, or of several. Raises TgenError, HttpError."""
    body = call.body
    model = await call.model()
    engine = model.writing()
    prompts = take_texts(body, "prompt", MOST_PROMPTS)
    stream, with_ids = take_flag(body, "stream"), take_flag(body, "return_tokens")
    for key in ("n_keep", "id_slot"):  # these change nothing here: there are no slots, and no part of a text is dropped
        take_number(body, key, -1, 2**31)
    if candidates := take_number(body, "n_probs", 0, 2**31):
        body["logprobs"] = candidates
    resolved = resolved_options(call, engine, read_body("completion", {**body, "prompt": ""}))
    jobs = await make_jobs(call, engine, prompts, resolved)
    texts = Texts(call, engine, jobs, resolved.options.samples)
    made = Continuations(model.name, engine.generator.end_tokens, resolved.options.stop, texts.samples, with_ids=with_ids)
    if stream:
        return texts.stream(made)
    answers = made.whole(await texts.collected())
    return answers if len(answers) > 1 else answers[0]


class Continuations:
    """Makes the objects of an answer; in a stream, each is a server-sent event."""

    def __init__(self, model: str, end_tokens: frozenset[int], stops: Sequence[str], samples: int, *, with_ids: bool) -> None:
        """A text may end with one of the `stops`. Each prompt has `samples` texts, whose indices follow one another."""
        self._model = model
        self._end_tokens = end_tokens
        self._stops = stops
        self._samples = samples
        self._with_ids = with_ids
        self._started: dict[int, Started] = {}  # by the index of the prompt's first text
        self._tokens: dict[int, list[Token]] = {}
        self._texts: dict[int, str] = {}

    def begin(self) -> Iterator[bytes]:
        """Nothing comes before the text."""
        yield from ()

    def add(self, event: Event) -> Iterator[bytes]:
        """The frames that an event makes."""
        if isinstance(event, Piece):
            yield sse({"index": event.index, "content": event.text, "stop": False, **_scored(event.tokens)})
        if (last := self.of(event)) is not None:
            yield sse({**last, "content": ""})

    def end(self, counted: dict[str, Any]) -> Iterator[bytes]:  # noqa: ARG002
        """Nothing comes after the text."""
        yield from ()

    def whole(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        """The objects of whole texts."""
        made = [last for event in events if (last := self.of(event)) is not None]
        return sorted(made, key=lambda last: int(last["index"]))

    def of(self, event: Event) -> dict[str, Any] | None:
        """The last object of a text, when it ends."""
        if isinstance(event, Started):
            self._started[event.index] = event
        elif isinstance(event, Piece):
            self._tokens.setdefault(event.index, []).extend(event.tokens)
            self._texts[event.index] = self._texts.get(event.index, "") + event.text
        elif isinstance(event, Finished):
            return self._last(event)
        return None

    def _last(self, finished: Finished) -> dict[str, Any]:
        text, started = self._texts.pop(finished.index, ""), self._started[finished.index - finished.index % self._samples]
        ended = bool(finished.ids) and finished.ids[-1] in self._end_tokens
        word = finished.reason == "stop" and not ended and bool(self._stops)
        return {
            "index": finished.index,
            "content": text,
            "tokens": list(finished.ids) if self._with_ids else [],
            "stop": True,
            "model": self._model,
            "tokens_predicted": finished.token_count,
            "tokens_evaluated": started.prompt_tokens,
            "tokens_cached": started.cached_tokens,
            "truncated": False,
            "has_new_line": "\n" in text,
            "stop_type": "word" if word else "eos" if finished.reason == "stop" else "limit",
            "stopping_word": self._stops[0] if word and len(self._stops) == 1 else "",
            "generation_settings": {"n_predict": started.max_new_tokens, "seed": started.seed, "stop": list(self._stops)},
            "timings": _timings(started, finished),
            **_scored(self._tokens.pop(finished.index, [])),
        }


def _scored(tokens: Sequence[Token]) -> dict[str, Any]:
    return {"completion_probabilities": chat_logprobs(tokens)["content"]} if tokens else {}


def _timings(started: Started, finished: Finished) -> dict[str, Any]:
    """Tokens and milliseconds of the part of the prompt that no cache held, and of the text."""
    read, first, rest = started.prompt_tokens - started.cached_tokens, 1000 * finished.prefill_seconds, 1000 * finished.decode_seconds
    return {
        "prompt_n": read,
        "prompt_ms": first,
        "prompt_per_second": 1000 * read / first if first else None,
        "predicted_n": finished.token_count,
        "predicted_ms": rest,
        "predicted_per_second": 1000 * finished.token_count / rest if rest else None,
    }
