"""Calls of functions: how templates get them, and how they are found in what models write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgen.errors import UsageError
from tgen.text.call_forms import Call
from tgen.text.calls import CallReader, ChannelCalls, TaggedCalls, WholeCalls, call_reader
from tgen.text.chat import ChatTemplate, read_messages

FUNCTIONS: dict[str, dict[str, Any]] = {"weather": {}, "time.now": {}}
DAY = Call("weather", '{"day": "today"}')
NOW = Call("time.now", "{}")
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"day": "today"}}\n</tool_call>'
SECOND = '<tool_call>{"name": "time.now", "arguments": {}}</tool_call>'
LLAMA = '{"name": "weather", "parameters": {"day": "today"}}'


def read(reader: CallReader | None, text: str, size: int, written: str = "") -> tuple[str, list[Call]]:
    """What a reader makes of a text that comes in pieces of this size."""
    assert reader is not None
    found = [reader.feed(text[place : place + size]) for place in range(0, len(text), size)] + [reader.flush(written)]
    return "".join(said for said, _ in found), [call for _, calls in found for call in calls]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (HERMES, "", [DAY]),
        (f"I look.\n\n{HERMES}\n{SECOND}\n", "I look.", [DAY, NOW]),
        (f"{HERMES} and then", "and then", [DAY]),
        (HERMES.removesuffix("</tool_call>"), "", [DAY]),  # the end token took the place of the tag
        ("2 < 3 and <tool>, \n", "2 < 3 and <tool>, \n", []),
        ("a <tool_cal", "a <tool_cal", []),
        ("a <tool_call>no JSON</tool_call>", "a <tool_call>no JSON</tool_call>", []),
        ('<tool_call>{"name": "delete", "arguments": {}}</tool_call>', '<tool_call>{"name": "delete", "arguments": {}}</tool_call>', []),
        ("", "", []),
        (" \n", " \n", []),
    ],
)
def test_tagged_calls(text: str, said: str, calls: list[Call], size: int) -> None:
    assert read(TaggedCalls(FUNCTIONS), text, size) == (said, calls)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (LLAMA, "", [DAY]),
        (f"<|python_tag|>{LLAMA}; {LLAMA}<|eom_id|>", "", [DAY, DAY]),
        ('[{"name": "weather", "arguments": {"day": "today"}}, {"name": "time.now"}]', "", [DAY, NOW]),
        ('[TOOL_CALLS] [{"name": "weather", "arguments": "{\\"day\\": \\"today\\"}", "id": "x"}]</s>', "", [DAY]),
        ("{}", "{}", []),
        ("{ is a brace", "{ is a brace", []),
        (f"{LLAMA} is how", f"{LLAMA} is how", []),
        ('{"name": "delete", "parameters": {}}', '{"name": "delete", "parameters": {}}', []),
        ('{"name": "weather", "parameters": {"day": "\\ud800"}}', '{"name": "weather", "parameters": {"day": "\\ud800"}}', []),
        ("[" * 5000, "[" * 5000, []),
        (f"So: {LLAMA}", f"So: {LLAMA}", []),
    ],
)
def test_calls_that_are_all_the_text(text: str, said: str, calls: list[Call], size: int) -> None:
    assert read(WholeCalls(FUNCTIONS), text, size) == (said, calls)


def test_mistral_s_names_before_arguments() -> None:
    """The text lacks the special tokens, so only the ids tell what is a name."""
    written = '[TOOL_CALLS]weather[ARGS]{"day": "today"}[TOOL_CALLS]time.now[CALL_ID]abc[ARGS]{}</s>'
    reader = call_reader("{{ '[TOOL_CALLS]' }}{{ '[ARGS]' }}", FUNCTIONS)
    assert read(reader, 'weather{"day": "today"}time.now{}', 4, written) == ("", [DAY, NOW])
    assert read(call_reader("[ARGS]", FUNCTIONS), "weather is fine", 4, "weather is fine</s>") == ("weather is fine", [])


NIGHT = {"weather": {"properties": {"day": {"type": "string"}, "hours": {"type": "array"}, "mild": {"type": "boolean"}}}, "time.now": {}}
ALL = Call("weather", '{"day": "today", "hours": [1, 2], "mild": true}')
DEEPSEEK = "<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>"
FORMS = {
    "bare": (
        "<function={",
        "<function=weather>\n<parameter=day>\ntoday\n</parameter>\n</function>\n<function=time.now>\n</function>",
        [DAY, NOW],
    ),
    "seed": ("<seed:tool_call>", "<seed:tool_call><function=weather><parameter=day>today</parameter></function></seed:tool_call>", [DAY]),
    "glm": (
        "<tool_call>",
        "<tool_call>weather\n<arg_key>day</arg_key>\n<arg_value>today</arg_value>\n<arg_key>hours</arg_key><arg_value>[1, 2]</arg_value>"
        "<arg_key>mild</arg_key><arg_value>true</arg_value>\n</tool_call>\n<tool_call>time.now\n</tool_call>",
        [ALL, NOW],
    ),
    "lfm2": (
        "<|tool_call_start|>",
        '<|tool_call_start|>[weather(day="today", hours=[1, 2], mild=true), time.now()]<|tool_call_end|>',
        [ALL, NOW],
    ),
    "minicpm": (
        "<|tool_call_start|>",
        "<|tool_call_start|>\n```python\nweather(day='today')\ntime.now()\n```\n<|tool_call_end|>",
        [DAY, NOW],
    ),
    "olmo": ("<function_calls>", "<function_calls>weather(day='today')\ntime.now()</function_calls>", [DAY, NOW]),
    "nemotron": (
        "<TOOLCALL>",
        '<TOOLCALL>[{"name": "weather", "arguments": {"day": "today"}}, {"name": "time.now"}]</TOOLCALL>',
        [DAY, NOW],
    ),
    "hunyuan": ("<tool_calls>", '<tool_calls>[{"name": "weather", "arguments": {"day": "today"}}]</tool_calls>', [DAY]),
    "phi": ("<|tool_call|>", '<|tool_call|>[{"name": "weather", "arguments": {"day": "today"}}]<|/tool_call|>', [DAY]),
    "granite": ("<|tool_call|>", '<|tool_call|>[{"name": "weather", "arguments": {"day": "today"}}]', [DAY]),
    "apertus": ("<|tools_prefix|>", '<|tools_prefix|>[{"weather": {"day": "today"}}, {"time.now": {}}]<|tools_suffix|>', [DAY, NOW]),
    "command": (
        "<|START_ACTION|>",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "weather", "parameters": {"day": "today"}}]<|END_ACTION|>',
        [DAY],
    ),
    "deepseek 3": (
        "<｜tool▁calls▁begin｜>",
        DEEPSEEK.format(
            '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"day": "today"}\n```<｜tool▁call▁end｜>\n'
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>time.now\n```json\n{}\n```<｜tool▁call▁end｜>"
        ),
        [DAY, NOW],
    ),
    "deepseek 3.1": (
        "<｜tool▁calls▁begin｜>",
        DEEPSEEK.format('<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"day": "today"}<｜tool▁call▁end｜>'),
        [DAY],
    ),
    "wrapped": (
        "<tool_call>",
        '<tool_call>{"type": "function", "function": {"name": "weather", "arguments": {"day": "today"}}}</tool_call>',
        [DAY],
    ),
}


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("name", FORMS)
def test_forms_of_other_families(name: str, size: int) -> None:
    mark, text, calls = FORMS[name]
    reader = call_reader(f"{{{{ '{mark}' }}}}", NIGHT)
    assert read(reader, f"I look.\n{text}", size) == ("I look.", calls)
    assert isinstance(reader, TaggedCalls)
    assert read(call_reader(mark, {"other": {}}), text, size)[1] == []


@pytest.mark.parametrize(
    "text", ["[weather(day='today'), time.now()]", "[weather(day='today'), time.now()]\n", '[weather(day="today")]; [time.now()]']
)
def test_llama_s_python(text: str) -> None:
    assert read(call_reader("", NIGHT), text, 5) == ("", [DAY, NOW])


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]", "[weather('today')]", "[weather(day=today)]", "[weather(**{})]", "[delete(day='today')]", "[weather(day={1, 2})]",
        "[weather(day=1e999)]", "[weather(day='\\d')] and", "[" + "(" * 3000, "[weather(day=[f() for f in x])]", "[open('x').read()]", "[]",
    ],
)  # fmt: skip
def test_other_python_is_text(text: str) -> None:
    assert read(call_reader("", NIGHT), text, 5) == (text, [])


HARMONY = "{{ '<|start|>' }}{{ '<|channel|>' }}{{ '<|message|>' }}"


@pytest.mark.parametrize(
    ("parts", "said", "calls"),
    [
        ("<|channel|> analysis <|message|> Hm. <|end|> <|start|> assistant <|channel|> final <|message|> Hello.", "Hello.", []),
        (
            "<|channel|> analysis <|message|> Hm. <|end|> <|start|> assistant <|channel|> commentary+to=functions.weather+ "
            '<|constrain|> json <|message|> {"day":+"today"}',
            "",
            [DAY],
        ),
        (
            "<|channel|> commentary <|message|> I+look. <|end|> <|start|> assistant+to=functions.time.now "
            "<|channel|> commentary <|message|> {} <|call|>",
            "I look.",
            [NOW],
        ),
        ("<|channel|> commentary+to=functions.delete <|message|> {}", "{}", []),
        ("<|channel|> commentary+to=functions.weather <|message|> no+JSON <|call|>", "no JSON", []),
        ("Hello.", "Hello.", []),
        ("<|channel|> final", "", []),
    ],
)
def test_channels(parts: str, said: str, calls: list[Call]) -> None:
    """Their marks are special tokens, so each comes whole."""
    reader = call_reader(HARMONY, FUNCTIONS)
    assert isinstance(reader, ChannelCalls)
    found = [reader.feed(part.replace("+", " ")) for part in parts.split(" ")] + [reader.flush()]
    assert ("".join(text for text, _ in found), [call for _, some in found for call in some]) == (said, calls)


def test_which_texts_are_read() -> None:
    assert call_reader("<tool_call>", {}) is None
    assert isinstance(call_reader(HARMONY, {}), ChannelCalls)
    assert isinstance(call_reader(HARMONY, FUNCTIONS, forced=True), WholeCalls)


def test_text_is_not_held_back_without_need() -> None:
    """Text streams until a tag may begin, or from its first word on."""
    tagged, whole = TaggedCalls(FUNCTIONS), WholeCalls(FUNCTIONS)
    assert tagged.feed("Hello <to") == ("Hello", [])
    assert tagged.feed("day>")[0] == " <today>"
    assert whole.feed("Hello {")[0] == "Hello {"
    assert isinstance(call_reader("<tool_call>", FUNCTIONS), TaggedCalls)
    assert isinstance(call_reader("<tool_call>", FUNCTIONS, forced=True), WholeCalls)


KINDS: dict[str, Any] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "switch": {"type": "boolean"},
    "list": {"type": "array"},
    "object": {"type": "object"},
    "maybe": {"type": ["string", "null"]},
    "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "listed": {"enum": ["1", 2]},
}
TAGGED = {"f": {"type": "object", "properties": KINDS}, "g": {}}


def function(name: str, **arguments: str) -> str:
    """A call as the template of Qwen3-Coder writes it."""
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
    return f"<function={name}>\n{inner}</function>"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "12", "12"),
        ("text", "null", "null"),
        ("text", "\n two <b>\nlines\n\n", "\n two <b>\nlines\n\n"),
        ("number", "12", 12),
        ("number", "-1.5e3", -1500.0),
        ("number", "many", "many"),
        ("number", "NaN", "NaN"),
        ("number", "None", None),
        ("switch", "true", True),
        ("switch", "False", False),
        ("list", '[1, "a"]', [1, "a"]),
        ("object", '{"a": {"b": null}}', {"a": {"b": None}}),
        ("object", '{"a": 1} and', '{"a": 1} and'),
        ("maybe", "null", None),
        ("maybe", "5", "5"),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("listed", "1", "1"),
        ("listed", "2", 2),
        ("unknown", "5", "5"),
    ],
)
def test_a_parameter_has_the_type_of_its_schema(key: str, text: str, value: Any) -> None:
    said, [call] = read(TaggedCalls(TAGGED), f"<tool_call>\n{function('f', **{key: text})}\n</tool_call>", 5)
    assert said == ""
    assert call.name == "f"
    assert json.loads(call.arguments) == {key: value}


@pytest.mark.parametrize("size", [1, 6, 1000])
@pytest.mark.parametrize(
    ("inside", "calls"),
    [
        (function("g"), [("g", {})]),
        (function("f", text="a", number="1"), [("f", {"text": "a", "number": 1})]),
        (f"{function('g', x='1')}\n{function('f')}", [("g", {"x": "1"}), ("f", {})]),
        ("<function=f><parameter=text>\na\n<parameter=number>\n1\n</parameter></function>", [("f", {"text": "a", "number": 1})]),
        (function("delete"), None),
        (f"{function('g')} and", None),
        ("<function=g>text</function>", None),
        ("<function=g", None),
        (function("f", text="\ud800"), None),
    ],
)
def test_functions_and_parameters_in_tags(inside: str, calls: list[tuple[str, Any]] | None, size: int) -> None:
    text = f"So:\n<tool_call>\n{inside}\n</tool_call>"
    said, found = read(TaggedCalls(TAGGED), text, size)
    if calls is None:
        assert (said, found) == (text, [])
    else:
        assert said == "So:"
        assert [(call.name, json.loads(call.arguments)) for call in found] == calls


def test_a_call_that_the_model_leaves_open() -> None:
    text = f"<tool_call>\n{function('f', text='a').removesuffix('</function>')}"
    assert read(TaggedCalls(TAGGED), text, 9) == ("", [Call("f", '{"text": "a"}')])


@given(st.text("<tol_ca>/\n {}x", max_size=60), st.integers(1, 9))
def test_no_text_is_lost(text: str, size: int) -> None:
    """Whatever the pieces, a text without calls comes out as it is."""
    for reader in (TaggedCalls({}), WholeCalls({})):
        said, calls = read(reader, text, size)
        assert not calls
        assert said == text or said == f"{text}</tool_call>"  # a tag that was never closed is closed


TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "description": "é", "parameters": {"type": "object"}}}
TEMPLATE = """{%- if tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>
{%- elif m.tool_calls %}{{ m.content }}{% for c in m.tool_calls %}<tool_call>{"name": "{{ c.function.name }}", "arguments": \
{{ c.function.arguments | tojson }}}</tool_call>{% endfor %}
{%- else %}<{{ m.role }}>{{ m.content }}{% endif %}
{%- endfor %}"""
TALK = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "And today?"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": '{"day": "é"}'}}]},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "Rain."}]},
]


def test_a_template_gets_tools_and_calls() -> None:
    """The arguments of a call as an object, as transformers hands them over."""
    template = ChatTemplate(TEMPLATE, "place", {}).with_tools([TOOL])
    assert template.render(read_messages(TALK)) == [
        json.dumps(TOOL, ensure_ascii=False) + '\n<system>Be brief.<user>And today?<tool_call>{"name": "weather", "arguments": '
        '{"day": "é"}}</tool_call><tool_response>Rain.</tool_response>'
    ]


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="takes no tools"):
        ChatTemplate("{{ messages[0].content }}", "place", {}).with_tools([TOOL])
    for calls in ([1], "x", [{"id": "a", "function": {"name": "f"}}], [{"function": {"name": "f", "arguments": "{}"}}]):
        with pytest.raises(UsageError, match="message 1 has tool_calls that cannot be read"):
            read_messages([{"role": "assistant", "content": None, "tool_calls": calls}])
    with pytest.raises(UsageError, match="message 1 has no text"):
        read_messages([{"role": "assistant", "content": None}])
