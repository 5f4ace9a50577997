r"""The patterns of schemas, written so that they mean the same to Python, to JavaScript and to the grammar library.

They disagree on whether `é` is a `\w` and a non-breaking space a `\s`. tgen takes the narrower meaning, so that all of them accept the text
that a model writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

META = set(r"\.+*?()|[]{}^$#&-~/")
# Python, JavaScript or Unicode, but not all of them, call these characters spaces; all three call ASCII's six spaces.
SPACES = r"\x{1C}-\x{1F}\x{85}\x{A0}\x{1680}\x{180E}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}"
BEYOND = r"\x{80}-\x{10FFFF}"
# The digits, letters and spaces of all readers, and those of any reader.
_ALL = {"d": "[0-9]", "w": "[0-9A-Za-z_]", "s": r"[ \t-\r]"}
_ANY = {"d": f"[0-9{BEYOND}]", "w": f"[0-9A-Za-z_{BEYOND}]", "s": rf"[ \t-\r{SPACES}]"}
# In a class that excludes characters an escape is taken in its wide meaning, everywhere else in its narrow one.
NARROW = _ALL | {letter.upper(): f"[^{text[1:]}" for letter, text in _ANY.items()}
WIDE = _ANY | {letter.upper(): f"[^{text[1:]}" for letter, text in _ALL.items()}
QUANTIFIER = re.compile(r"\{(\d+)(?:,\d*)?\}|\{,\d+\}|[*+?]")
CHARACTER = re.compile(r"\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]+)\}")
# The ways to write a Unicode property that both the library and ECMAScript know.
PROPERTY = re.compile(r"\\[pP]\{\w+(=\w+)?\}")
GROUP = re.compile(r"\((?:\?(?:P?<[^=!>][^>]*>|:|(?P<flags>[a-zA-Z-]+)[:)]|(?P<around><?[=!])))?")
# An example takes the first of these characters that fits. Longer examples than this many characters help no search.
SAMPLES = "0aA1bB _-./:" + "".join(map(chr, range(33, 127))) + "\n\t\u00e9\u4e00"
LONGEST_EXAMPLE = 4096


class UnportableError(ValueError):
    """Python, JavaScript and the library read the expression in different ways."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An expression in the library's syntax, whether readers differ on what it matches, and an example: a short text that it matches.

    The example is a guess that must be tried before use; None where the expression does not show one.
    """

    text: str
    differs: bool
    example: str | None


def read_pattern(expression: str) -> Pattern:
    """Read an expression of Python's or JavaScript's syntax. Raises UnportableError if the two read it in different ways."""
    return _Reader(expression).read()


def example(expression: str) -> str | None:
    """The example of an expression that may be in any dialect."""
    try:
        return read_pattern(expression).example
    except UnportableError:
        return None


class _Reader:
    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.place = 0
        self.differs = False
        self.written: list[str] = []
        # The open groups, the alternatives of each, and the examples of their parts.
        self.groups: list[list[list[str | None]]] = [[[]]]

    def read(self) -> Pattern:
        while self.place < len(self.expression):
            self.written.append(self._next())
        return Pattern("".join(self.written), self.differs, _shortest(self.groups[0]) if len(self.groups) == 1 else None)

    def _next(self) -> str:
        character, start = self.expression[self.place], self.place
        if character == "\\":
            text = self._escape(NARROW)
            found = CHARACTER.match(self.expression, start)
            self._add(chr(int(found[1] or found[2], 16)) if found else _sample(self.expression[start : self.place]))
            return text
        if character == "[":
            return self._class()
        if found := QUANTIFIER.match(self.expression, self.place):
            return self._quantifier(found)
        if found := GROUP.match(self.expression, self.place):
            return self._group(found)
        self.place += 1
        if character == "|":
            self.groups[-1].append([])
        elif character == ")" and len(self.groups) > 1:
            self._add(_shortest(self.groups.pop()))
        elif character != ")":
            self._add("" if character in "^$" else "0" if character == "." else character)
        return {"{": r"\{", "\n": r"\x{A}"}.get(character, character)

    def _add(self, text: str | None) -> None:
        """Note the example of a part."""
        self.groups[-1][-1].append(text)

    def _group(self, found: re.Match[str]) -> str:
        if found["flags"]:
            raise UnportableError(f"the inline flag (?{found['flags']}) is not known to ECMAScript")
        self.place = found.end()
        self.groups.append([[None]] if found["around"] else [[]])
        return found[0]

    def _quantifier(self, found: re.Match[str]) -> str:
        text, self.place = found[0], found.end()
        if self.expression[self.place : self.place + 1] == "+":
            raise UnportableError(f"the possessive {text}+ is not known everywhere")
        if text.startswith("{,"):
            raise UnportableError(f"{text} is a repetition to some readers and a text to others")
        if self.expression[self.place : self.place + 1] == "?":  # a lazy repetition allows the same texts
            self.place += 1
        if parts := self.groups[-1][-1]:
            least, part = int(found[1] or text == "+"), parts[-1]
            parts[-1] = "" if not least else None if part is None or len(part) * least > LONGEST_EXAMPLE else part * least
        return text

    def _escape(self, classes: dict[str, str]) -> str:
        if found := CHARACTER.match(self.expression, self.place):
            self.place = found.end()
            return rf"\x{{{found[1] or found[2]}}}"
        character = self.expression[self.place + 1 : self.place + 2]
        if character in ("p", "P"):
            found = PROPERTY.match(self.expression, self.place)
            if found is None:
                raise UnportableError(rf"\{character} is a property only as in \{character}{{L}} or \{character}{{Script=Greek}}")
            self.place = found.end()
            self.differs = True  # each version of Unicode adds some
            return found[0]
        self.place += 2
        if character in classes and character:
            self.differs = True
            return classes[character]
        if character.isascii() and not character.isalnum() and character != "_" and character not in META:
            return character
        return f"\\{character}"

    def _class(self) -> str:
        """A bracketed class. All readers know ranges, characters and escapes in a class; anything else stands for itself."""
        negated = self.expression.startswith("[^", self.place)
        self.place += 2 if negated else 1
        written = ["[^" if negated else "["]
        plain = written.copy()  # the same in Python's syntax
        while self.place < len(self.expression):
            character, start = self.expression[self.place], self.place
            if character == "]" and len(written) > 1:
                self.place += 1
                self._add(_sample("".join([*plain, "]"])))
                return "".join([*written, "]"])
            if character == "\\":
                written.append(self._escape(WIDE if negated else NARROW))
                plain.append(self.expression[start : self.place])
            else:
                self.place += 1
                doubled = character == "-" and self.expression[self.place : self.place + 1] == "-"
                written.append(f"\\{character}" if character in "[]&~|" or doubled else character)
                plain.append(written[-1])
        raise UnportableError("a [ is not closed")


def _sample(part: str) -> str | None:
    """A character that a class or an escape allows."""
    try:
        found = re.compile(part)
    except re.error:
        return None
    return next((character for character in SAMPLES if found.fullmatch(character)), None)


def _shortest(alternatives: list[list[str | None]]) -> str | None:
    texts = ["".join(part for part in parts if part is not None) for parts in alternatives if None not in parts]
    return min(texts, key=len, default=None)
