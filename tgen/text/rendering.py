"""Renders a chat template as transformers does, with limits. Knows templates and values, and nothing of messages or tokenizers.

A template comes with a model from anywhere, so it is untrusted code. minijinja reaches no file, no module and no attribute that begins
with an underscore; lists and dicts are handed over so that no template can change them. Its fuel limits the steps and the length of
every text. What fuel does not count, work on lists that contain themselves many times over, is ended by a watchdog with the process:
nothing gentler can interrupt it.
"""

from __future__ import annotations

import faulthandler
import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from minijinja import Environment, TemplateError

STEPS = 200_000  # a conversation of ten turns takes two thousand
CHARACTERS_A_STEP = 4  # of the values; each step may write 64
WATCHDOG = 5.0  # seconds; the largest rendering within the limits takes a tenth of one
MOST_CODE, MOST_INDENT = 2_000, 16

_TEXT = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_TAG = re.compile(rf"\{{[{{%](?:[^\"'%}}]|{_TEXT}|[%}}](?!\}}))*", re.DOTALL)
_FORMAT = re.compile(rf"({_TEXT})?\s*\.\s*format\s*\(", re.DOTALL)
# transformers' tag around what the assistant says, for training alone; `with` treats scopes and white space as that tag does.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


class RefusalError(Exception):
    """What the template itself says against its values."""


class BrokenTemplateError(Exception):
    """A template that does not work; `line` is where, if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


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
    size = len(json.dumps(values, ensure_ascii=False))
    source = _prepared(source)
    # One of its own for each text: it is locked while it renders, and a second thread would wait for it with the interpreter locked.
    environment = Environment(
        fuel=STEPS + size // CHARACTERS_A_STEP,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_escape_callback=lambda _: False,
        globals={"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)},
        filters={"tojson": _to_json},
    )
    faulthandler.dump_traceback_later(WATCHDOG, exit=True, file=2)
    try:
        return str(environment.render_str(source, "template", **_frozen(values)))
    except TemplateError as error:
        raise BrokenTemplateError(_reason(error), error.line) from error
    except (RefusalError, BrokenTemplateError):
        raise
    except Exception as error:
        raise BrokenTemplateError(f"{type(error).__name__}: {error}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()


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
    if error.kind == "OutOfFuel":
        return "it takes too many steps, or its text is too long"
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
