"""Events and errors as JSON: the shape of OpenAI's objects, and what stands beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.engine.scripted import Stage, speak
from tgen.errors import CapacityError, TgenError, UsageError
from tgen.events import Event, Finished, Note, Piece, Started, Token, TokenScore
from tgen.sampling.logits import NumericalError
from tgen.text.chat import Message
from tgen.wire.records import answer_record, chat_object, completion_object, error_record, timings
from tgen.wire.requests import JsonRequest, LineKey

KEY = LineKey(2, "x", enveloped=True)
COMPLETION, CHAT = JsonRequest("completion", "Once"), JsonRequest("chat", messages=[Message("user", "a")])


def score(number: int, text: str, logprob: float = -1.0, data: bytes | None = None) -> TokenScore:
    return TokenScore(number, text, logprob, text.encode() if data is None else data)


# A fox in two tokens, neither of which is a character, after two alternatives that look alike.
HALVES = (score(7, "\N{REPLACEMENT CHARACTER}", -0.5, b"\xf0\x9f"), score(8, "\N{REPLACEMENT CHARACTER}", -1.5, b"\xa6\x8a"))
EVENTS: list[Event] = [
    Started(3, 9, 4),
    Piece(1, " b", (Token(score(6, " b", -0.1)),)),
    Finished(1, "stop", 2, 0.5, 1.0),
    Piece(0, " a", (Token(score(5, " a", -2.0), (score(6, " b", -0.1), score(5, " a", -2.0))),)),
    Piece(0, "\N{FOX FACE}", (Token(HALVES[0], HALVES), Token(HALVES[1], (HALVES[1], HALVES[0])))),
    Note("too long"),
    Finished(0, "length", 3, 0.25, 2.0),
]


def test_a_completion_has_openais_lists_with_ids_and_bytes_beside_them() -> None:
    found = completion_object("m", EVENTS, "Once")
    first, second = found.pop("choices")
    assert found == {
        "model": "m",
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "seed": 4,
        "warnings": ["too long"],
    }
    alike = {"token": "\N{REPLACEMENT CHARACTER}", "id": 7, "logprob": -0.5, "bytes": [240, 159]}
    other = {"token": "\N{REPLACEMENT CHARACTER}", "id": 8, "logprob": -1.5, "bytes": [166, 138]}
    b, a = ({"token": text, "id": number, "logprob": logprob, "bytes": [32, text.encode()[1]]} for text, number, logprob in
            ((" b", 6, -0.1), (" a", 5, -2.0)))  # fmt: skip
    assert first == {
        "index": 0,
        "text": "Once a\N{FOX FACE}",
        "finish_reason": "length",
        "tokens": [5, 7, 8],
        "logprobs": {
            "tokens": [" a", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"],
            "token_logprobs": [-2.0, -0.5, -1.5],
            "top_logprobs": [{" b": -0.1, " a": -2.0}, {"\N{REPLACEMENT CHARACTER}": -0.5}, {"\N{REPLACEMENT CHARACTER}": -1.5}],
            "text_offset": [4, 6, 6],
            "token_bytes": [[32, 97], [240, 159], [166, 138]],
            "top_tokens": [[b, a], [alike, other], [other, alike]],
        },
    }
    assert list(first["logprobs"]["top_logprobs"][0]) == [" b", " a"]
    assert (second["text"], second["logprobs"]["text_offset"], second["logprobs"]["top_logprobs"]) == ("Once b", [4], [{}])


def test_a_chats_tokens_are_objects() -> None:
    first, second = chat_object("m", EVENTS)["choices"]
    assert first["message"] == {"role": "assistant", "content": " a\N{FOX FACE}"}
    assert "text" not in first
    content = first["logprobs"]["content"]
    assert [(one["token"], one["id"], one["bytes"], len(one["top_logprobs"])) for one in content] == [
        (" a", 5, [32, 97], 2),
        ("\N{REPLACEMENT CHARACTER}", 7, [240, 159], 2),
        ("\N{REPLACEMENT CHARACTER}", 8, [166, 138], 2),
    ]
    assert content[1]["top_logprobs"][1] == {"token": "\N{REPLACEMENT CHARACTER}", "id": 8, "logprob": -1.5, "bytes": [166, 138]}
    assert second["logprobs"] == {"content": [{"token": " b", "id": 6, "logprob": -0.1, "bytes": [32, 98], "top_logprobs": []}]}


def test_bytes_that_nobody_knows_are_null() -> None:
    event = Piece(0, "a", (Token(TokenScore(5, "a", -1.0)),))
    finished = Finished(0, "stop", 1, 0.0, 0.0)
    assert completion_object("m", [event, finished])["choices"][0]["logprobs"]["token_bytes"] == [None]
    assert chat_object("m", [event, finished])["choices"][0]["logprobs"]["content"][0]["bytes"] is None


NOTHING_SCORED: list[Event] = [Started(1, 1, 1), Piece(0, "a"), Finished(0, "stop", 1, 0.0, 0.0)]


@pytest.mark.parametrize("events", [EVENTS, NOTHING_SCORED])
def test_openais_own_client_takes_them(events: list[Event]) -> None:
    types = pytest.importorskip("openai.types")
    chat = pytest.importorskip("openai.types.chat")
    completed, spoken = (json.dumps(answer_record(KEY, request, "m", events)["response"]["body"]) for request in (COMPLETION, CHAT))
    found = types.Completion.model_validate(json.loads(completed), strict=True)
    assert [choice.text for choice in found.choices] == [choice["text"] for choice in json.loads(completed)["choices"]]
    answer = chat.ChatCompletion.model_validate(json.loads(spoken), strict=True)
    assert [choice.message.content for choice in answer.choices] == [choice.text for choice in found.choices]
    for choice in answer.choices:
        assert (choice.logprobs is None) == (events is NOTHING_SCORED)
        assert all(isinstance(token.bytes, list) for token in (choice.logprobs.content if choice.logprobs else []))


def with_bytes(event: Event) -> Event:
    """The same, where each id is a byte."""
    if not isinstance(event, Piece):
        return event
    scores = (replace(token.score, bytes=bytes([token.score.id]) if token.score.id < 256 else None) for token in event.tokens)
    return replace(event, tokens=tuple(Token(found) for found in scores))


@given(st.text(min_size=1, max_size=12), st.lists(st.text(min_size=1, max_size=3), max_size=3))
@example("\x80", ["\x800"])
@example("a\N{REPLACEMENT CHARACTER}b", [])
def test_offsets_are_places_in_the_text(text: str, stops: list[str]) -> None:
    """Each token is one byte here, so that its character is known; what belongs to a stop string begins where the text ends."""
    played = Stage(speak(text)).play(temperature=0, logprobs=0, stop=tuple(stops), max_new_tokens=60)
    choice = completion_object("m", [*map(with_bytes, played.events)], "PRE")["choices"][0]
    wanted = [place for place, character in enumerate(text) for _ in character.encode()]
    wanted.append(len(text))  # the end token
    whole = len(choice["text"]) - 3
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == [3 + min(place, whole) for place in wanted[: len(offsets)]]
    without_bytes = completion_object("m", played.events, "PRE")["choices"][0]["logprobs"]["text_offset"]
    assert without_bytes == sorted(without_bytes)
    assert all(3 <= place <= len(choice["text"]) for place in without_bytes)


def test_offsets_where_a_word_alone_loses_its_space_and_where_a_token_leaves_no_text() -> None:
    tokens = [
        Token(TokenScore(n, text, -1.0, data))
        for n, (text, data) in enumerate([("The", b" The"), ("fox", None), ("<special>", None), ("ran", b" ran"), ("", b"")])
    ]
    events: list[Event] = [Piece(0, "The", (tokens[0],)), Piece(0, " fox", (tokens[1],)), Piece(0, " ran", tuple(tokens[2:]))]
    events.append(Finished(0, "stop", 5, 0.0, 0.0))
    assert completion_object("m", events)["choices"][0]["logprobs"]["text_offset"] == [0, 3, 7, 7, 11]


def test_a_cache_is_counted_and_time_is_told() -> None:
    events: list[Event] = [Started(3, 9, 4, cached_tokens=2), *EVENTS[1:]]
    assert completion_object("m", events)["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert timings(EVENTS) == {"prefill_seconds": 0.5, "decode_seconds": 2.0, "tokens_per_second": 2.5}
    assert timings([])["tokens_per_second"] is None


def test_lines_are_answered_in_the_form_they_were_asked_in() -> None:
    answer = completion_object("m", EVENTS)
    assert answer_record(LineKey(3), JsonRequest(prompt="Once"), "m", EVENTS) == {"line": 3, **answer}
    assert answer_record(LineKey(3, 0), JsonRequest(prompt="Once"), "m", EVENTS) == {"line": 3, "id": 0, **answer}
    echoed = answer_record(LineKey(3), JsonRequest(prompt="Once", echo=True), "m", EVENTS)
    assert echoed["choices"] == completion_object("m", EVENTS, "Once")["choices"]
    said = {"line": 3, **chat_object("m", EVENTS)}
    assert answer_record(LineKey(3), JsonRequest(messages=[Message("user", "a")]), "m", EVENTS) == said
    for request, kind, inner in ((COMPLETION, "text_completion", answer), (CHAT, "chat.completion", chat_object("m", EVENTS))):
        body = {"id": "cmpl-3", "object": kind, "created": 0, **inner}
        assert answer_record(LineKey(3, "x", True), request, "m", EVENTS) == {
            "line": 3,
            "id": "line-3",
            "custom_id": "x",
            "response": {"status_code": 200, "request_id": "line-3", "body": body},
            "error": None,
        }


def test_errors_have_the_code_of_their_class_and_speak_of_keys() -> None:
    said: dict[str, Any] = {"code": "context", "message": "too long", "hint": "shorten it"}
    error = CapacityError("too long", "shorten it")
    assert error_record(LineKey(3), error) == {"line": 3, "error": said}
    assert error_record(LineKey(3, "x"), error) == {"line": 3, "id": "x", "error": said}
    assert error_record(LineKey(3, "x", True), error) == {
        "line": 3, "id": "line-3", "custom_id": "x", "response": None, "error": said,
    }  # fmt: skip
    assert error_record(LineKey(3), TgenError("bad"))["error"] == {"code": "unexpected", "message": "bad"}
    assert error_record(LineKey(3), NumericalError("not finite"))["error"]["code"] == "numerical"
    words = UsageError("--top-k must be 0 or more, not -1", "use --overflow truncate-left or another --model")
    assert error_record(LineKey(3), words)["error"] == {
        "code": "usage",
        "message": "top_k must be 0 or more, not -1",
        "hint": "use overflow truncate-left or another --model",
    }
