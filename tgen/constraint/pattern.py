"""Regular expressions that mean the same to every reader: Python, JavaScript and the engine's own. Knows no tokens and no schema.

Readers differ in whether `é` is a `\\w` or a non-breaking space a `\\s`. Where they do, the narrower reading is taken, so that what is
written matches for all of them.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

META = set(r"\.+*?()|[]{}^$#&-~/")
# Spaces to Python, JavaScript or Unicode, beyond the six of ASCII on which all agree.
SPACES = r"\x{1C}-\x{1F}\x{85}\x{A0}\x{1680}\x{180E}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}"
BEYOND = r"\x{80}-\x{10FFFF}"
# What is in a class for every reader, and what is for any: the first where a class adds characters, the second where it excludes them.
NARROW = {
    "d": "[0-9]",
    "D": f"[^0-9{BEYOND}]",
    "w": "[0-9A-Za-z_]",
    "W": f"[^0-9A-Za-z_{BEYOND}]",
    "s": r"[ \t-\r]",
    "S": rf"[^ \t-\r{SPACES}]",
}
WIDE = {
    "d": f"[0-9{BEYOND}]",
    "D": "[^0-9]",
    "w": f"[0-9A-Za-z_{BEYOND}]",
    "W": "[^0-9A-Za-z_]",
    "s": rf"[ \t-\r{SPACES}]",
    "S": r"[^ \t-\r]",
}
QUANTIFIER = re.compile(r"\{\d+(,\d*)?\}|\{,\d+\}|[*+?]")
CHARACTER = re.compile(r"\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]+)\}")
# Of the engine's own spellings of a property those that ECMAScript knows, too, and that of Perl for one letter.
PROPERTY = re.compile(r"\\[pP](\{\w+(=\w+)?\}|[A-Z])")
FLAGS = re.compile(r"\(\?([a-zA-Z]*(?:-[a-zA-Z]*)?)[:)]")
# What they mean is agreed on, and what `portable` writes is the same under them.
KNOWN_FLAGS = re.compile("[imsu]*(-[ims]*)?")
FLAGS_FIRST = re.compile(r"\(\?[imsu]+\)")


class UnportableError(ValueError):
    """An expression that readers understand in different ways."""


def portable(pattern: str, *, whole: bool = False) -> tuple[str, bool]:
    """The expression in the engine's syntax, and whether readers differ on what it matches.

    `whole` is for one that must match the whole text: there `^` at the start of an alternative and `$` at its end say nothing. It is not
    from a schema, so it may have inline flags, which Python and most others know and ECMAScript does not. Raises UnportableError.
    """
    return _Reader(pattern, whole).read()


def example(pattern: str) -> str | None:
    """A short text that the expression finds a match in, None where that is not plain to see. A guess: whoever uses it tries it first."""
    try:
        # Python's own parser, which it keeps to itself. Without it there is no example, and a search takes longer.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            parsed = importlib.import_module("re._parser").parse(pattern)
    except (ImportError, AttributeError, re.error, RecursionError, OverflowError):
        return None
    return _example(parsed)


# Of the characters that a class allows, the first of these is taken.
SAMPLES = "0aA1bB _-./:" + "".join(map(chr, range(33, 127))) + "\n\t\u00e9\u4e00"


def _example(parts: Any) -> str | None:
    """The shortest example of a parsed expression."""
    found = []
    for operation, argument in parts:
        text = _one(str(operation), argument)
        if text is None:
            return None
        found.append(text)
    return "".join(found)


def _one(operation: str, argument: Any) -> str | None:
    """The same for one of its parts."""
    if operation == "AT":
        return ""
    if operation in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
        items = argument if operation == "IN" else [(operation, argument)]
        samples = [chr(argument)] if operation == "LITERAL" else SAMPLES
        return next((character for character in samples if _holds(items, character)), None)
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        least, _, inner = argument
        text = _example(inner) if least else ""
        return None if text is None or least > 4096 else text * least
    if operation == "SUBPATTERN":
        return _example(argument[3])
    if operation == "BRANCH":
        texts = [text for inner in argument[1] if (text := _example(inner)) is not None]
        return min(texts, key=len, default=None)
    return None


def _holds(items: Sequence[tuple[Any, Any]], character: str) -> bool:
    """Whether a class has a character."""
    negated, found, code = False, False, ord(character)
    for operation, argument in items:
        kind = str(operation)
        negated = negated or kind == "NEGATE"
        found = found or (
            (kind == "LITERAL" and code == argument)
            or (kind == "NOT_LITERAL" and code != argument)
            or (kind == "ANY" and character != "\n")
            or (kind == "RANGE" and argument[0] <= code <= argument[1])
            or (kind == "CATEGORY" and _in_category(str(argument), character))
        )
    return found != negated


def _in_category(name: str, character: str) -> bool:
    letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}.get(name.rsplit("_", 1)[-1], "d")
    return (re.match(f"\\{letter}", character) is None) == ("NOT" in name)


class _Reader:
    def __init__(self, pattern: str, whole: bool) -> None:
        self.pattern = pattern
        self.whole = whole
        self.place = 0
        self.depth = 0
        self.differs = False
        self.written: list[str] = []

    def read(self) -> tuple[str, bool]:
        while self.place < len(self.pattern):
            self.written.append(self._next())
        return "".join(self.written), self.differs

    def _next(self) -> str:
        character = self.pattern[self.place]
        if character == "\\":
            return self._escape(NARROW)
        if character == "[":
            return self._class()
        if found := QUANTIFIER.match(self.pattern, self.place):
            return self._quantifier(found[0])
        if (flags := FLAGS.match(self.pattern, self.place)) and flags[1] and not (self.whole and KNOWN_FLAGS.fullmatch(flags[1])):
            raise UnportableError(f"the inline flag (?{flags[1]}) is not known {'here' if self.whole else 'to ECMAScript'}")
        self.place += 1
        if character == "{":
            return r"\{"
        self.depth += (character == "(") - (character == ")")
        if self.whole and not self.depth and self._says_nothing(character):
            return ""
        return r"\x{A}" if character == "\n" else character

    def _says_nothing(self, character: str) -> bool:
        """Whether it is an anchor at the border of an alternative."""
        first = FLAGS_FIRST.match(self.pattern)
        before, after = self.pattern[first.end() if first else 0 : self.place - 1], self.pattern[self.place :]
        starts = not before or (before[-1] == "|" and before[-2:] != r"\|")
        return (character == "^" and starts) or (character == "$" and after[:1] in ("", "|"))

    def _quantifier(self, text: str) -> str:
        self.place += len(text)
        if self.pattern[self.place : self.place + 1] == "+":
            raise UnportableError(f"the possessive {text}+ is not known everywhere")
        if text.startswith("{,"):
            raise UnportableError(f"{text} is a repetition to some readers and a text to others")
        if self.pattern[self.place : self.place + 1] == "?":  # lazy or not, it is the same language
            self.place += 1
        return text

    def _escape(self, classes: dict[str, str]) -> str:
        if found := CHARACTER.match(self.pattern, self.place):
            self.place += len(found[0])
            return rf"\x{{{found[1] or found[2]}}}"
        character = self.pattern[self.place + 1 : self.place + 2]
        if character in ("p", "P"):
            found = PROPERTY.match(self.pattern, self.place)
            if found is None or (found[1][0] != "{" and not self.whole):
                raise UnportableError(rf"\{character} is a property only as in \{character}{{L}} or \{character}{{Script=Greek}}")
            self.place += len(found[0])
            self.differs = True  # each version of Unicode has more
            return found[0]
        self.place += 2
        if character in classes and character:
            self.differs = True
            return classes[character]
        if character.isascii() and not character.isalnum() and character != "_" and character not in META:
            return character
        return f"\\{character}"

    def _class(self) -> str:
        """A bracketed class. Only ranges, characters and escapes are known everywhere, so all else stands for itself."""
        negated = self.pattern.startswith("[^", self.place)
        self.place += 2 if negated else 1
        written = ["[^" if negated else "["]
        first = True
        while self.place < len(self.pattern):
            character = self.pattern[self.place]
            if character == "]" and not first:
                self.place += 1
                return "".join([*written, "]"])
            if character == "\\":
                written.append(self._escape(WIDE if negated else NARROW))
            else:
                self.place += 1
                doubled = character == "-" and self.pattern[self.place : self.place + 1] == "-"
                written.append(f"\\{character}" if character in "[]&~" or doubled else character)
            first = False
        raise UnportableError("a [ is not closed")
