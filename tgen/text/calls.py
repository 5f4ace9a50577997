"""Finds the function calls in what a model writes: Hermes' and Qwen's <tool_call>, Llama 3's JSON, Mistral's [TOOL_CALLS].

Inside <tool_call> stands JSON or, from Qwen3-Coder and Qwen3.5, <function=NAME> with a <parameter=NAME> for each argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tgen.files import refuse_constant

BEGIN, END = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
# What the template of these models makes of values that JSON spells otherwise.
_SPELLINGS = {"True": True, "False": False}
_NAMED = re.compile(r"\s*(?:\[TOOL_CALLS\]\s*)?([\w.-]+)\s*(?:\[CALL_ID\][\w-]*)?\s*\[ARGS\]\s*")


@dataclass(frozen=True, slots=True)
class Call:
    """A call: the name of the function, and its arguments as JSON."""

    name: str
    arguments: str


# The functions that a model may call, each with the JSON schema of its arguments.
Functions = Mapping[str, Mapping[str, Any]]
Found = tuple[str, list[Call]]


class TaggedCalls:
    """Calls between tags, with text before, between and after them; white space beside a call is no part of the text."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._held = ""  # what may be the beginning of a tag
        self._inside: str | None = None  # the text since the last tag that began a call
        self._blank = ""  # white space that belongs to the text only if more text follows
        self._called = False

    def feed(self, text: str) -> Found:
        """The text and the calls that are complete after this piece."""
        shown: list[str] = []
        calls: list[Call] = []
        while True:
            if self._inside is None:
                before, tag, text = (self._held + text).partition(BEGIN)
                said = before if tag else _without_start(before)
                self._held = before[len(said) :]
                shown.append(self._spaced(said))
                if not tag:
                    return "".join(shown), calls
                self._inside = ""
            self._inside += text
            body, end, text = self._inside.partition(END)
            if not end:
                return "".join(shown), calls
            self._close(body, shown, calls)

    def flush(self, written: str = "") -> Found:  # noqa: ARG002
        """What was held back, when no more text will come. A model may end without the last tag."""
        shown: list[str] = []
        calls: list[Call] = []
        if self._inside is not None:
            self._close(self._inside, shown, calls)
        else:
            shown.append(self._spaced(self._held))
            shown.append("" if self._called else self._blank)
        return "".join(shown), calls

    def _spaced(self, text: str) -> str:
        """The text with white space that was held before it, without that at its end, which is held in turn."""
        kept = text.rstrip()
        if not kept:
            self._blank += text
            return ""
        said = kept.lstrip() if self._called else self._blank + kept
        self._called, self._blank = False, text[len(kept) :]
        return said

    def _close(self, body: str, shown: list[str], calls: list[Call]) -> None:
        self._inside = None
        found = _read(body, self._functions)
        blank, self._blank = self._blank, ""
        if found is None:
            shown.append(f"{blank}{BEGIN}{body}{END}")
            return
        self._called = True
        calls += found


class WholeCalls:
    """Calls that are all the text: JSON, or names before [ARGS]. Text that begins otherwise is let through at once."""

    def __init__(self, functions: Functions, *, hold: bool = False) -> None:
        """`hold` keeps every text back, where the beginning does not tell whether it is a call."""
        self._functions = functions
        self._hold = hold
        self._held = ""
        self._is_text = False

    def feed(self, text: str) -> Found:
        """The text that is no call."""
        if self._is_text:
            return text, []
        self._held += text
        start = self._held.lstrip()
        if self._hold or not start or start[0] in "{[" or "<|python_tag|>".startswith(start[:14]):
            return "", []
        self._is_text = True
        return self._held, []

    def flush(self, written: str = "") -> Found:
        """The calls, if all of the text is calls; else the text. `written` is the text with its special tokens."""
        if self._is_text:
            return "", []
        for text in (self._held, written):
            if calls := _read(text, self._functions):
                return "", calls
        return self._held, []


CallReader = TaggedCalls | WholeCalls


def call_reader(template: str, functions: Functions, *, forced: bool = False) -> CallReader:
    """The reader for a model with this chat template; `forced` calls are JSON and nothing else, whatever the template says."""
    if BEGIN in template and not forced:
        return TaggedCalls(functions)
    return WholeCalls(functions, hold="[ARGS]" in template and not forced)


def _without_start(text: str) -> str:
    """The text without the beginning of a tag at its end."""
    length = next((length for length in range(len(BEGIN) - 1, 0, -1) if text.endswith(BEGIN[:length])), 0)
    return text[: len(text) - length]


def _read(text: str, functions: Functions) -> list[Call] | None:
    """The calls that a text consists of; None if it is anything else, or calls a function that is not there."""
    if text.lstrip().startswith("<function="):
        return _tagged(text, functions)
    text = text.strip().removeprefix("<|python_tag|>").removeprefix("[TOOL_CALLS]").strip()
    calls: list[Call] = []
    while text:
        named = _NAMED.match(text)
        value, text = _value(text[named.end() :] if named else text)
        for one in value if isinstance(value, list) and not named else [value]:
            call = _call({"name": named[1], "arguments": one} if named else one)
            if call is None or call.name not in functions:
                return None
            calls.append(call)
        text = re.sub(r"^(?:\s|;|,|</s>|<\|[\w-]+\|>)+", "", text)
    return calls or None


def _tagged(text: str, functions: Functions) -> list[Call] | None:
    """The calls of <function=NAME> and <parameter=NAME> that a text consists of; None if it is anything else."""
    calls: list[Call] = []
    for name, body in _parts(_FUNCTION, text) or ():
        parameters = _parts(_PARAMETER, body)
        if parameters is None or name not in functions:
            return None
        schemas = functions[name].get("properties")
        schemas = schemas if isinstance(schemas, Mapping) else {}
        call = _call({"name": name, "arguments": {key: _argument(value, schemas.get(key)) for key, value in parameters}})
        if call is None:
            return None
        calls.append(call)
    return calls or None


def _parts(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]] | None:
    """The name and the content of each tagged part that a text consists of; None if anything else stands between them."""
    return None if pattern.sub("", text).strip() else [(found[1].strip(), found[2]) for found in pattern.finditer(text)]


def _argument(text: str, schema: Any) -> Any:
    """The value of a parameter, which its schema tells from a text; the line breaks beside the tags are no part of it."""
    text = text.removeprefix("\n").removesuffix("\n")
    schema = schema if isinstance(schema, Mapping) else {"type": "string"}
    named, listed = schema.get("type"), schema.get("enum")
    kinds = named if isinstance(named, list) else [named]
    if text == "None" or (text == "null" and "null" in kinds):
        return None if "null" in kinds or "string" not in kinds else text
    if "string" in kinds or (isinstance(listed, list) and text in listed):
        return text
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    value, rest = _value(text)
    return text if rest.strip() or (value is None and text.strip() != "null") else value


def _value(text: str) -> tuple[Any, str]:
    """The JSON value that a text begins with, and the rest; None and nothing if there is none."""
    try:
        value, end = json.JSONDecoder(parse_constant=refuse_constant).raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None, ""
    return value, text.lstrip()[end:]


def _call(value: Any) -> Call | None:
    """The call of {"name", "arguments"}; Llama calls the arguments parameters, and some models write them as a text."""
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _value(arguments)[0]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    said = json.dumps(arguments, ensure_ascii=False)
    return Call(name, said) if said.isascii() or said.encode(errors="ignore").decode() == said else None  # half a character is no text
