"""Whether a chat template could build values that contain one another. Reads its tags and runs nothing.

Growth needs a container that holds what the template itself has bound to a name: in a display such as `[x, x]`, a sum of lists, a
namespace that holds a namespace. The answer errs on the side of yes, so whatever is not known here counts as growing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_OPENING = re.compile(r"\{[{%#][-+]?\s*")
_TOKEN = re.compile(r"""(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(\d[\w.]*)|(\w+|[=!<>]=|[^\s"']))\s*""", re.DOTALL)
_LITERAL = "0"  # stands for every text and number
_KEYWORDS = frozenset("if else and or not in is".split())
_SEPARATORS = _KEYWORDS | frozenset([",", ":", "=", "==", "!=", "<=", ">=", "<", ">"])
_CLOSES = {")": "(", "]": "[", "}": "{"}
_EXPRESSIONS = frozenset("output if elif else endif endfor endset endmacro endwith break continue".split())
_TEXT_FUNCTIONS = frozenset(["raise_exception", "strftime_now"])
_OTHER_FUNCTIONS = frozenset("range namespace dict cycler joiner lipsum debug".split())
# None of these puts its value into a container, or makes a list whose length a mere number sets.
_FILTERS = frozenset(
    "trim string length count lower upper title capitalize join replace int float bool abs round first last min max default d list select "
    "reject selectattr rejectattr map unique sort reverse tojson items dictsort safe escape e indent "
    "split lines sum format urlencode".split()
)
_METHODS = frozenset(
    "split rsplit splitlines strip lstrip rstrip startswith endswith replace upper lower title capitalize items keys values get join find "
    "rfind count format isdigit isalpha isalnum isspace islower isupper".split()
)
_TEXTS = frozenset(["bos_token", "eos_token"])  # tgen sets them
_MOST_PASSES = 10


class _UnknownError(Exception):
    """A template that may grow, or that is not understood."""


@dataclass(frozen=True, slots=True)
class _Tag:
    keyword: str
    targets: list[str]
    expression: list[str]


@dataclass(slots=True)
class _Bracket:
    """What has been seen inside one pair of brackets, and in the part of it since the last separator."""

    sign: str = ""
    container: bool = False
    group: bool = False
    bound: bool = False
    added: bool = False
    adds_bound: bool = False
    adds_literal: bool = False

    def separate(self) -> None:
        """End the part. Raises _UnknownError for a sum that may be one of lists: nothing in it is a text or a number."""
        if self.added and self.adds_bound and not self.adds_literal:
            raise _UnknownError
        self.added = self.adds_bound = self.adds_literal = False

    def mention(self) -> None:
        self.bound = self.adds_bound = True


@lru_cache(maxsize=8)
def grows(source: str) -> bool:
    """Whether a template could build values far larger than its steps and the length of its text allow for."""
    try:
        tags = [_tag(tokens) for tokens in _tags(source)]
        bound = _bound(tags)
        macros = {tag.expression[0] for tag in tags if tag.keyword == "macro"}
        spaces = {tag.targets[0] for tag in tags if tag.expression[:1] == ["namespace"] and tag.keyword == "set"}
        for tag in tags:
            _check_calls(tag, macros, spaces)
            _check_containers(tag.expression, bound)
    except _UnknownError:
        return True
    return False


def _tags(source: str) -> Iterator[list[str]]:
    """The tokens of each tag, its keyword first."""
    position = 0
    while opening := _OPENING.search(source, position):
        kind, position = opening[0][1], opening.end()
        if kind == "#":
            position = source.find("#}", opening.start() + 2) + 2
            if position == 1:
                raise _UnknownError
            continue
        closing = "}}" if kind == "{" else "%}"
        tokens = ["output"] if kind == "{" else []
        while not source.startswith(closing, position):
            token = _TOKEN.match(source, position)
            if token is None:
                raise _UnknownError
            tokens.append(token[3] or _LITERAL)
            position = token.end()
        position += 2
        yield [token for number, token in enumerate(tokens, start=1) if number < len(tokens) or token not in "-+"]


def _tag(tokens: list[str]) -> _Tag:
    keyword, rest = (tokens[0], tokens[1:]) if tokens else ("", [])
    if keyword in _EXPRESSIONS:
        return _Tag(keyword, [], rest)
    if keyword == "for" and "in" in rest:
        middle = rest.index("in")
        return _Tag(keyword, [name for name in rest[:middle] if name != ","], _one_value(rest[middle + 1 :]))
    if keyword == "set" and len(rest) == 1:
        return _Tag(keyword, rest, [])
    if keyword == "set" and rest[1:2] == ["="]:
        return _Tag(keyword, rest[:1], _one_value(rest[2:]))
    if keyword == "set" and rest[1:2] == ["."] and rest[3:4] == ["="]:
        return _Tag(keyword + ".", rest[:1], _one_value(rest[4:]))
    if keyword == "with":
        return _Tag(keyword, [name for name, sign in pairwise(rest) if sign == "="], rest)
    if keyword == "macro" and rest[1:2] == ["("]:
        return _Tag(keyword, [name for sign, name in pairwise(rest) if sign in "(,"], rest)
    raise _UnknownError


def _one_value(expression: list[str]) -> list[str]:
    """The expression, if no comma outside brackets makes a tuple of it."""
    depth = 0
    for token in expression:
        depth += (token in _CLOSES.values()) - (token in _CLOSES)
        if token == "," and depth == 0:
            raise _UnknownError
    return expression


def _bound(tags: list[_Tag]) -> set[str]:
    """The names that may hold what the template has made: not those of a loop over values from outside."""
    bound = {"loop"}
    for _ in range(_MOST_PASSES):
        more = {name for tag in tags if tag.keyword != "for" or not bound.isdisjoint(tag.expression) for name in tag.targets} - bound
        if not more:
            return bound
        bound |= more
    raise _UnknownError


def _check_calls(tag: _Tag, macros: Set[str], spaces: Set[str]) -> None:
    """Raises _UnknownError for a call, a filter or a use of a namespace that is not known to be harmless."""
    tokens = ["", *tag.expression, "", ""]
    for number, token in enumerate(tokens[1:-2], start=1):
        before, after = tokens[number - 1], tokens[number + 1]
        called = after == "(" and token not in _KEYWORDS
        if before == "|":
            harmless = token in _FILTERS and (token != "map" or tokens[number + 2] == "attribute")
        elif before == ".":
            harmless = not called or token in _METHODS
        elif before == "is" or (before == "not" and tokens[number - 2] == "is"):
            harmless = True
        elif token in ("range", "namespace"):
            alone = tag.keyword == ("for" if token == "range" else "set") and number == 1
            harmless = called and alone and (token == "namespace" or "|" not in tokens)
        elif token in _TEXT_FUNCTIONS:
            harmless = True
        elif token in _OTHER_FUNCTIONS | macros:
            harmless = called and token in {"dict"} | macros
        elif token in spaces:
            harmless = after in (".", "=")
        else:
            harmless = token != "*" and not (called and (token.isidentifier() or token in _CLOSES or token == _LITERAL))
        if not harmless:
            raise _UnknownError


def _check_containers(expression: list[str], bound: Set[str]) -> None:
    """Raises _UnknownError for a container that holds a bound name, and for a sum that may be one of lists."""
    open_brackets = [_Bracket()]
    before = ""
    for token, after in zip(expression, [*expression, ""][1:], strict=True):
        inner = open_brackets[-1]
        ends_value = before not in _KEYWORDS and (before.isidentifier() or before in _CLOSES or before == _LITERAL)
        if token in _CLOSES.values():
            container = token == "{" or (before == "dict" if token == "(" else not ends_value) or before == "namespace"
            open_brackets.append(_Bracket(token, container, token == "(" and not ends_value))
        elif token in _CLOSES:
            inner.separate()
            if len(open_brackets) == 1 or inner.sign != _CLOSES[token] or (inner.container and inner.bound):
                raise _UnknownError
            open_brackets.pop()
            if inner.bound:
                open_brackets[-1].mention()
        elif token in _SEPARATORS:
            inner.separate()
            inner.container |= inner.group and token == ","
        elif token == "+":
            inner.added = True
        elif token == _LITERAL or (token in _TEXTS and token not in bound):
            inner.adds_literal |= before != "." and after not in (".", "|", "[", "(")
        elif token in bound and before not in (".", "|", "is") and after != "=":
            inner.mention()
        before = token
    if len(open_brackets) > 1:
        raise _UnknownError
    open_brackets[0].separate()
