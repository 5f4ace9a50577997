"""The program that renders chat templates in a process of its own. Knows nothing of tgen, and nothing of tgen imports it.

A template comes with a model from anywhere, so it is untrusted code: jinja2's sandbox keeps it from reaching Python, and the process's
limits keep it from filling the memory or never ending, even in one long call that no sandbox sees. Reads one JSON object, {template,
variables, conversations}, from standard input and answers with one: {texts}, or {error, line, refused}.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

SECONDS = 5  # whoever started this process stops it somewhat later, should the alarm not get through
MEMORY = 2**30
MOST_CHARACTERS = 2**24
MOST_ITEMS = 10**6
MOST_BITS = 10**5


class RefusalError(TemplateError):
    """What the template itself says against a conversation."""


class TooSlow(BaseException):
    """The alarm has rung. Not an Exception, which jinja2 catches in places."""


class Generation(Extension):
    """The tag around what the assistant says, which only training looks at."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The tag's content as it is, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Macro) -> str:
        return caller()


class Dict:
    """`dict` without the attributes of a class."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        return dict.fromkeys(*values)


class PlainNamespace(Namespace):
    """`namespace` without names that begin with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:
        self, values = arguments[0], dict(*arguments[1:], **named)
        Namespace.__init__(self, {})
        for name, value in values.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace must not have a name like {name!r}")
        super().__setitem__(name, value)


class Environment(ImmutableSandboxedEnvironment):
    """transformers' environment, with limits to what one multiplication can make."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply or raise to a power, unless the result would be huge."""
        if operator == "%":
            pass  # only intercepted so that it is computed, and fails, at its line, and not while the template is compiled
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > MOST_BITS:
                raise SecurityError("a power is too large")
        elif isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > MOST_BITS:
                raise SecurityError("a product is too large")
        else:
            for sequence, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(sequence, str | list | tuple) and len(sequence) * times > MOST_ITEMS:
                    raise SecurityError("a repetition is too long")
        return super().call_binop(context, operator, left, right)


def render(template: str, variables: Mapping[str, Any], conversations: list[Any]) -> list[str]:
    """The texts of conversations, as transformers' apply_chat_template renders them before it tokenises."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": Dict(), "namespace": PlainNamespace}
    compiled = environment.from_string(template)
    texts = []
    for messages in conversations:
        values = {**variables, "messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
        text, length = [], 0
        # Piece by piece, and not by `render`: it would join what is too long before anyone can say so.
        for piece in compiled.root_render_func(compiled.new_context(values)):
            length += len(piece)
            if length > MOST_CHARACTERS:
                raise SecurityError(f"its text is longer than {MOST_CHARACTERS} characters")
            text.append(piece)
        texts.append("".join(text))
    return texts


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise RefusalError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _line(error: BaseException) -> int | None:
    """The template's line that was being rendered."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    line, place = None, error.__traceback__
    while place is not None:
        template = place.tb_frame.f_globals.get("__jinja_template__")
        line = template.get_corresponding_lineno(place.tb_lineno) if template else line
        place = place.tb_next
    return line


def _limit() -> None:
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    with contextlib.suppress(ImportError, OSError, ValueError):  # where the system has no such limits, the parent's patience remains
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _ring(_: int, __: FrameType | None) -> None:
    raise TooSlow(f"it takes longer than {SECONDS} seconds")


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.buffer.read())
    _limit()
    answer: dict[str, Any]
    try:
        answer = {"texts": render(request["template"], request["variables"], request["conversations"])}
    except MemoryError as error:
        answer = {"error": "it takes too much memory", "line": _line(error), "refused": False}
    except (Exception, TooSlow) as error:
        reason = str(error) if isinstance(error, TemplateError | TooSlow) else f"{type(error).__name__}: {error}"
        answer = {"error": reason[:1000], "line": _line(error), "refused": isinstance(error, RefusalError)}
    signal.alarm(0)
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
