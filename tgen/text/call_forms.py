"""Reads calls of functions in the forms in which models write them: JSON, tags, Python, and DeepSeek's fences."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tgen.files import refuse_constant

# Qwen3-Coder and Seed-OSS: <function=NAME> with a <parameter=NAME> for each argument.
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
# GLM 4.5 and later: the name, then keys and values by turns.
_KEYED = re.compile(r"([\w.-]+)\s*((?:<arg_key>.*)?)", re.DOTALL)
_KEY = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL)
# DeepSeek: V3 has "function" before the separator and the name behind it, V3.1 the name before it.
_SEPARATED = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>([\w.-]+)\s*```json\s*(.*?)\s*```|([\w.-]+)<｜tool▁sep｜>(.*?))\s*(?:<｜tool▁call▁end｜>|\Z)",
    re.DOTALL,
)
# How these models' templates, and Python, spell values that JSON spells otherwise.
_SPELLINGS = {"True": True, "False": False}
_NAMED = re.compile(r"\s*(?:\[TOOL_CALLS\]\s*)?([\w.-]+)\s*(?:\[CALL_ID\][\w-]*)?\s*\[ARGS\]\s*")
_FENCE = re.compile(r"```(?:python|json|tool_code|tool_call)?\n(.*?)\n?```", re.DOTALL)
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Call:
    """A call: the name of the function, and its arguments as JSON."""

    name: str
    arguments: str


# The functions that a model may call, each with the JSON schema of its arguments.
Functions = Mapping[str, Mapping[str, Any]]


def read_calls(text: str, functions: Functions) -> list[Call] | None:
    """The calls that a text consists of; None if it holds anything else, or calls an unknown function."""
    start = text.strip()
    if start.startswith("<function="):
        return _tagged(text, functions)
    if start.startswith("<｜tool▁call▁begin｜>"):
        return _separated(text, functions)
    if "<arg_key>" in text or start in functions:
        return _keyed(start, functions)
    if fenced := _FENCE.fullmatch(start):
        start = fenced[1].strip()
    return _json(start, functions) or _python(start, functions)


def _json(text: str, functions: Functions) -> list[Call] | None:
    """The calls in JSON values, one after another or in lists; Mistral writes a function's name before its arguments."""
    text = text.removeprefix("<|python_tag|>").removeprefix("[TOOL_CALLS]").removeprefix("functools").strip()
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
        call = _typed(name, parameters, functions)
        if call is None:
            return None
        calls.append(call)
    return calls or None


def _keyed(text: str, functions: Functions) -> list[Call] | None:
    """The call of a name with <arg_key> and <arg_value> behind it; None if the text is anything else."""
    found = _KEYED.fullmatch(text)
    pairs = None if found is None else _parts(_KEY, found[2])
    if found is None or pairs is None or found[1] not in functions:
        return None
    call = _typed(found[1], pairs, functions)
    return None if call is None else [call]


def _separated(text: str, functions: Functions) -> list[Call] | None:
    """The calls between DeepSeek's tags; None if the text is anything else."""
    if _SEPARATED.sub("", text).strip():
        return None
    found = [(match[1] or match[3], _value(match[2] or match[4] or "")) for match in _SEPARATED.finditer(text)]
    return _checked(({"name": name, "arguments": value} for name, (value, rest) in found if not rest.strip()), len(found), functions)


def _python(text: str, functions: Functions) -> list[Call] | None:
    """The calls of Python expressions with named arguments, in a list or one a line; None if the text is anything else."""
    if "(" not in text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes that Python does not know
            statements = ast.parse(text).body
        nodes: list[ast.expr] = []
        for statement in statements:
            value = statement.value if isinstance(statement, ast.Expr) else None
            nodes += value.elts if isinstance(value, ast.List | ast.Tuple) else [value] if value is not None else []
        made = [_python_call(node) for node in nodes] if len(nodes) >= len(statements) else []
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return _checked(made, len(made), functions)


def _python_call(node: ast.expr) -> dict[str, Any]:
    """The name and the arguments of a call. Raises ValueError for any other expression."""
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError
    arguments = {str(keyword.arg): ast.literal_eval(_Constants().visit(keyword.value)) for keyword in node.keywords}
    return {"name": ast.unparse(node.func), "arguments": json.loads(json.dumps(arguments, allow_nan=False))}


class _Constants(ast.NodeTransformer):
    """Puts Python's constants in place of JSON's names for them."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(_CONSTANTS[node.id]), node) if node.id in _CONSTANTS else node


def _checked(values: Iterable[dict[str, Any]], count: int, functions: Functions) -> list[Call] | None:
    """The calls in `count` values; None if there are no values, or if one of them does not call a known function."""
    calls = [call for value in values if (call := _call(value)) is not None and call.name in functions]
    return calls if len(calls) == count > 0 else None


def _typed(name: str, arguments: Iterable[tuple[str, str]], functions: Functions) -> Call | None:
    """The call of a function whose arguments are written as texts; its schema tells which of them mean other values."""
    schemas = functions[name].get("properties")
    schemas = schemas if isinstance(schemas, Mapping) else {}
    return _call({"name": name, "arguments": {key: _argument(value, schemas.get(key)) for key, value in arguments}})


def _parts(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]] | None:
    """The name and the content of each tagged part that a text consists of; None if anything else stands between them."""
    return None if pattern.sub("", text).strip() else [(found[1].strip(), found[2]) for found in pattern.finditer(text)]


def _argument(text: str, schema: Any) -> Any:
    """The value that a parameter's text means by its schema; the line breaks beside the tags are no part of it."""
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
    """The JSON value that a text begins with, and the rest; None and an empty rest if there is none."""
    try:
        value, end = json.JSONDecoder(parse_constant=refuse_constant).raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None, ""
    return value, text.lstrip()[end:]


def _call(value: Any) -> Call | None:
    """The call of {"name", "arguments"}; Llama calls the arguments parameters, and some models write them as a text.

    Command calls the name tool_name, others put both into a "function", and Apertus writes {NAME: ARGUMENTS}.
    """
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    if len(value) == 1 and isinstance(only := next(iter(value.values())), dict):
        value = {"name": next(iter(value)), "arguments": only}
    name, arguments = value.get("name", value.get("tool_name")), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _value(arguments)[0]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    said = json.dumps(arguments, ensure_ascii=False)
    return Call(name, said) if said.isascii() or said.encode(errors="ignore").decode() == said else None  # half a surrogate pair is no text
