"""Renders a chat template as transformers does, with limits, here or as a program. Knows templates and values, not messages or tokenizers.

A template comes with a model from anywhere, so it is untrusted code. minijinja reaches no file, no module and no attribute that begins
with an underscore; lists and dicts are handed over so that no template can change them. Its fuel limits the steps and the length of
every text, but not work on lists that contain one another, and nothing can interrupt that. So a template that might build such lists, or
takes much fuel, is rendered by this file as a program: a process whose time and memory are limited, and whose crash is an error.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from minijinja import Environment, TemplateError

STEPS = 200_000
STEPS_HERE = 20_000  # a conversation of ten turns takes two thousand; the slowest work found within it, slices of slices, takes 0.2 s
CHARACTERS_A_STEP = 4  # this many characters of the values allow one more step, which may write 64
SECONDS, MEMORY = 8, 2**30  # a process starts in 0.04 s and needs 20 MiB
TOO_MANY_STEPS, TOO_MUCH = "it takes too many steps, or its text is too long", "it takes too much time or memory"
MOST_CODE, MOST_INDENT = 2_000, 16

_TEXT = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_TAG = re.compile(rf"\{{[{{%](?:[^\"'%}}]|{_TEXT}|[%}}](?!\}}))*", re.DOTALL)
_FORMAT = re.compile(rf"({_TEXT})?\s*\.\s*format\s*\(", re.DOTALL)
# transformers' tag around what the assistant says, for training alone; `with` treats scopes and white space as that tag does.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


class RefusalError(Exception):
    """A template's own complaint about its values, made with raise_exception."""


class BrokenTemplateError(Exception):
    """A template that does not work; `line` is where, if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class EndlessTemplateError(BrokenTemplateError):
    """A template that takes more steps, time or memory than it may."""


def _refuse_change(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a template cannot change its values")


class _List(list[Any]):
    """A list that a template can read."""

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse_change

    def copy(self) -> _List:
        return self


class _Dict(dict[str, Any]):
    """A dict that a template can read."""

    clear = pop = popitem = setdefault = update = fromkeys = _refuse_change

    def copy(self) -> _Dict:
        return self


def render(source: str, values: Mapping[str, Any]) -> str:
    """The text that a template makes of values. Raises RefusalError with the template's own words, BrokenTemplateError."""
    from tgen.text.growth import grows  # the program that this file is cannot import it

    prepared = _prepared(source)
    if not grows(prepared):
        with suppress(EndlessTemplateError):
            return _rendered(prepared, values, STEPS_HERE)
    return _apart(prepared, values)


def _rendered(source: str, values: Mapping[str, Any], fuel: int) -> str:
    # A new one for each text: it is locked while it renders, and a second thread would hold Python's global lock while it waits.
    environment = Environment(
        fuel=fuel,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_escape_callback=lambda _: False,
        globals={"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)},
        filters={"tojson": _to_json},
    )
    try:
        return str(environment.render_str(source, "template", **_frozen(values)))
    except TemplateError as error:
        if error.kind == "OutOfFuel":
            raise EndlessTemplateError(TOO_MANY_STEPS, error.line) from error
        raise BrokenTemplateError(_reason(error), error.line) from error
    except (RefusalError, BrokenTemplateError):
        raise
    except MemoryError as error:
        raise EndlessTemplateError(TOO_MUCH) from error
    except Exception as error:
        raise BrokenTemplateError(f"{type(error).__name__}: {error}") from error


def _apart(source: str, values: Mapping[str, Any]) -> str:
    """What `_rendered` does, in a process of its own, whose failure of any kind becomes an error."""
    command = [sys.executable, "-P", __file__]
    fuel = STEPS + len(json.dumps(values, ensure_ascii=False)) // CHARACTERS_A_STEP
    asked = json.dumps({"source": source, "values": values, "fuel": fuel})
    try:
        done = subprocess.run(
            command, input=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=SECONDS, start_new_session=True
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise EndlessTemplateError(TOO_MUCH) from error
    match answer:
        case {"text": text}:
            return str(text)
        case {"refused": words}:
            raise RefusalError(words)
    raise (EndlessTemplateError if answer["endless"] else BrokenTemplateError)(answer["reason"], answer["line"])


def _main() -> None:
    """Answer what `_apart` asks, from standard input to standard output."""
    with suppress(ImportError, ValueError):  # where there are no such limits, time is limited from outside
        import resource

        for limit, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(limit, (most, most))
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        answer = {"text": _rendered(asked["source"], asked["values"], asked["fuel"])}
    except RefusalError as refusal:
        answer = {"refused": str(refusal)}
    except BrokenTemplateError as error:
        answer = {"reason": str(error), "line": error.line, "endless": isinstance(error, EndlessTemplateError)}
    json.dump(answer, sys.stdout)


def variables(source: str) -> set[str]:
    """The names that a template takes from outside, those of its functions included; none for a template that is broken."""
    try:
        return set(Environment().undeclared_variables_in_str(source))
    except TemplateError:
        return set()


@lru_cache(maxsize=8)
def _prepared(source: str) -> str:
    """A template as minijinja takes it. Raises BrokenTemplateError for what would need more stack or memory than its fuel counts."""
    source = _GENERATION.sub(lambda tag: f"{tag[1]}{'endwith' if tag[2] else 'with'}{tag[3]}", re.sub("\r\n?", "\n", source))
    for tag in _TAG.finditer(source):
        if len(re.sub(_TEXT, "", tag[0], flags=re.DOTALL)) > MOST_CODE:
            raise BrokenTemplateError("an expression is too long", source.count("\n", 0, tag.start()) + 1)
    for call in _FORMAT.finditer(source):
        if call[1] is None or re.search(r"\{[^{}]*:|\\[xuUN0-7]", call[1]):
            raise BrokenTemplateError("format needs a literal text without widths", source.count("\n", 0, call.end()) + 1)
    return source


def _reason(error: TemplateError) -> str:
    """What is wrong, in one line and without the name of the template, which minijinja was not told."""
    reason = str(error.detail or error.message.removesuffix(f" (in template:{error.line})"))
    return " ".join(reason.replace("`", "'").split())


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Dict({key: _frozen(item) for key, item in value.items()})
    return _List(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    if (indent if isinstance(indent, int) else len(indent or "")) > MOST_INDENT:
        raise BrokenTemplateError(f"tojson indents by {MOST_INDENT} at most")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: Any = "") -> NoReturn:
    raise RefusalError(str(message))


if __name__ == "__main__":
    _main()
