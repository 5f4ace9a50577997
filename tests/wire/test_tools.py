"""Tools of a request, responses read as chats, and events that cross a connection unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tgen.errors import CapacityError, CheckpointError, MemoryLimitError, TgenError, UsageError
from tgen.events import Event, Finished, Note, Piece, Reading, Started, Token, TokenScore
from tgen.options import GenerationOptions, resolve
from tgen.values import Constraint
from tgen.wire.events import event_record, failure_record, read_event, read_failure, read_resolved, resolved_record
from tgen.wire.responses import chat_body
from tgen.wire.tools import Tools, take_tools


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **({} if parameters is None else {"parameters": parameters})}}


def forced(*tools: dict[str, Any], choice: Any = "required") -> Any:
    return take_tools({"tools": list(tools), "tool_choice": choice}).forced


def test_a_forced_call_has_a_schema() -> None:
    """Definitions of the parameters move to where references to them look."""
    item = {"type": "integer"}
    one = tool("a", {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": item}})
    schema = forced(one)
    assert schema["$defs"] == {"X": item}
    assert schema["properties"]["name"] == {"const": "a"}
    assert "$defs" not in schema["properties"]["arguments"]
    assert "$defs" in one["function"]["parameters"], "the template gets the tool as it was"
    both = forced(one, tool("b"))
    assert [choice["properties"]["name"]["const"] for choice in both["anyOf"]] == ["a", "b"]
    assert both["$defs"] == {"X": item}
    assert forced(one, tool("b"), choice={"type": "function", "function": {"name": "b"}})["properties"]["name"] == {"const": "b"}
    with pytest.raises(UsageError, match="define 'X' in two ways"):
        forced(one, tool("b", {"$defs": {"X": {"type": "string"}}}))


def test_what_of_tools_is_taken_and_what_refused() -> None:
    body = {"tools": [tool("a")], "tool_choice": "none", "parallel_tool_calls": False, "messages": []}
    assert take_tools(body) == Tools()
    assert body == {"messages": []}
    strict = {"type": "function", "function": {"name": "a", "strict": True, "description": "d"}}
    assert take_tools({"tools": [strict], "tool_choice": "auto"}).definitions == (
        {"type": "function", "function": {"name": "a", "description": "d"}},
    )
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tools": "a"}, "tools must be a list"),
        ({"tools": [{"type": "web_search"}]}, "tools must be functions"),
        ({"tools": [tool("")]}, "tools must be functions"),
        ({"tools": [tool("a", 3)]}, "tools must be functions"),
        ({"tools": [tool("a")], "tool_choice": "maybe"}, "tool_choice cannot be honoured"),
        ({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice names 'b'"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"tools": [tool("a")], "parallel_tool_calls": 1}, "parallel_tool_calls must be true or false"),
    ]
    for asked, words in wrong:
        with pytest.raises(UsageError, match=words):
            take_tools(asked)


def test_a_response_is_read_as_a_chat() -> None:
    body = chat_body(
        {
            "model": "m", "instructions": "Be brief.", "max_output_tokens": 5, "top_logprobs": 2, "truncation": "auto", "store": True,
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "null"}}}, "reasoning": {"effort": "low"},
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": None}],
            "tool_choice": {"type": "function", "name": "f"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "d"},
            ],
        }
    )  # fmt: skip
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert body == {
        "model": "m", "max_tokens": 5, "top_logprobs": 2, "logprobs": True, "overflow": "truncate-left", "store": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "b", "annotations": []}], "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "d"},
        ],
    }  # fmt: skip
    for asked, words in (
        ({"input": None}, "input must be a text"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input 1 is not a message"),
        ({"input": "a", "background": True}, "'background' cannot be honoured"),
        ({"input": "a", "truncation": "left"}, "truncation must be auto or disabled"),
        ({"input": "a", "text": 3}, "text must be an object"),
    ):
        with pytest.raises(UsageError, match=words):
            chat_body(asked)


SCORE = TokenScore(3, "é\ud7ff", -0.1234567890123456789, b"\xc3\xa9")


@pytest.mark.parametrize(
    "event",
    [
        Reading(1, 2),
        Started(3, 4, 2**64 - 1, 5),
        Piece(1, "a\n\0é", (Token(SCORE, (SCORE, TokenScore(0, "", -1e-300))), Token(TokenScore(0, "x", -float("inf"))))),
        Finished(0, "cancelled", 3, 0.1, 1 / 3, (1, 2), 4, 2),
        Note("so"),
    ],
)
def test_an_event_crosses_a_connection_unchanged(event: Event) -> None:
    assert read_event(json.loads(json.dumps(event_record(event)))) == event


def test_options_and_errors_cross_a_connection_unchanged() -> None:
    resolved = resolve({"seed": 2**64 - 1, "choices": ["a", "é"], "temperature": 0.1}, {"TGEN_TOP_K": "5"}, {"top_p": 0.3})
    assert read_resolved(json.loads(json.dumps(resolved_record(resolved)))) == resolved
    assert isinstance(resolved.options.constraint, Constraint)
    assert read_resolved(json.loads(json.dumps(resolved_record(resolve({"stop": ("a",)}, {}, {}))))).options == GenerationOptions(
        stop=("a",)
    )
    for kind in (TgenError, UsageError, CheckpointError, MemoryLimitError, CapacityError):
        error = read_failure(json.loads(json.dumps(failure_record(kind("what", "do")))))
        assert (type(error), error.message, error.hint, error.exit_code) == (kind, "what", "do", kind.exit_code)
