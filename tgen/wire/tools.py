"""Reads the functions that a request offers to the model, and whether the model must call one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tgen.errors import UsageError

TOOL_HINT = 'each is {"type": "function", "function": {"name": ..., "parameters": {...}}}'
CHOICE_HINT = 'it is "auto", "none", "required" or {"type": "function", "function": {"name": ...}}'


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions as a template gets them. `forced` is the schema of the call if the model must make one; `parallel` allows several."""

    definitions: tuple[dict[str, Any], ...] = ()
    forced: dict[str, Any] | None = None
    parallel: bool = True

    @property
    def functions(self) -> dict[str, dict[str, Any]]:
        """The functions that may be called, each with the schema of its arguments."""
        return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in self.definitions}


def take_tools(body: dict[str, Any]) -> Tools:
    """Take OpenAI's keys for tools out of a body, and read them. Raises UsageError."""
    value, choice, parallel = (body.pop(key, None) for key in ("tools", "tool_choice", "parallel_tool_calls"))
    if not isinstance(parallel, bool | None):
        raise UsageError(f"parallel_tool_calls must be true or false, not {parallel!r}")
    if value is None or value == []:
        if choice not in (None, "auto", "none"):
            raise UsageError("tool_choice needs tools", "add tools, or leave it out")
        return Tools()
    if not isinstance(value, list):
        raise UsageError("tools must be a list", TOOL_HINT)
    definitions = tuple(map(_definition, value))
    if choice == "none":
        return Tools()
    return Tools(definitions, _forced(definitions, choice), parallel is not False)


def _definition(value: Any) -> dict[str, Any]:
    match value:
        case {"type": "function", "function": {"name": str(name), **rest}} if name:
            parameters = rest.get("parameters")
            if isinstance(parameters, dict | None):
                return {"type": "function", "function": {"name": name, **{key: item for key, item in rest.items() if key != "strict"}}}
    raise UsageError("tools must be functions with a name and parameters", TOOL_HINT)


def _forced(definitions: tuple[dict[str, Any], ...], choice: Any) -> dict[str, Any] | None:
    """The schema of the call that a tool_choice asks for; None if the model may also write text."""
    match choice:
        case None | "auto":
            return None
        case "required":
            wanted = definitions
        case {"type": "function", "function": {"name": str(name)}}:
            wanted = tuple(tool for tool in definitions if tool["function"]["name"] == name)
            if not wanted:
                raise UsageError(f"tool_choice names {name!r}, which is not among the tools", CHOICE_HINT)
        case _:
            raise UsageError("tool_choice cannot be honoured", CHOICE_HINT)
    shared: dict[str, Any] = {}
    schemas = [_call_schema(tool["function"], shared) for tool in wanted]
    return {**(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}), **({"$defs": shared} if shared else {})}


def _call_schema(function: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call of one function. Its own definitions go into `shared`, where references to them look."""
    parameters = dict(function.get("parameters") or {"type": "object"})
    for name, schema in parameters.pop("$defs", {}).items():
        if shared.setdefault(name, schema) != schema:
            raise UsageError(f"the parameters of two tools define {name!r} in two ways", "give them different names")
    properties = {"name": {"const": function["name"]}, "arguments": parameters}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"], "additionalProperties": False}
