"""Expressions in the engine's syntax match nothing that Python's `re` does not, and examples are examples."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgen.constraint.grammar import Grammar, byte_vocabulary
from tgen.constraint.pattern import UnportableError, example, portable
from tgen.errors import UsageError
from tgen.options import Constraint

BYTES = byte_vocabulary()
TEXTS = [
    "",
    "a",
    "b",
    "é",
    "1",
    "٣",
    "-",
    "]",
    "[",
    "&",
    "\u00a0",
    "\x1c",
    "\ufeff",
    "\n",
    "ab",
    "a1",
    "a]",
    "a-b",
    "a&b",
    "x{}",
    " ",
    "_",
    "/",
    "aa",
]


def matches(expression: str, text: str) -> bool:
    matcher = Grammar(Constraint("regex", expression)).matcher(BYTES)
    return matcher.take(text.encode()) and matcher.accepting


@pytest.mark.parametrize(
    ("expression", "exact"),
    [
        ("a|b", True),
        ("^a$", True),
        ("^a|b$", True),
        ("[ab]*", True),
        ("[^a]", True),
        ("a?b?", True),
        ("(a|(b))1?", True),
        ("a.b", True),
        (".", True),
        ("[]a]+", True),
        ("[^]a]", True),
        ("[a[]", True),
        ("[a&&b]", True),
        ("[a-b-]", True),
        ("[+--]", True),
        (r"a\-b", True),
        (r"\/", True),
        (r"a\]", True),
        (r"x{}", True),
        (r"a{1,2}", True),
        (r"a*?b", True),
        ("(?i)A", True),
        ("(?i)^A$", True),
        ("x|(?i:A)b", True),
        ("(?s).", True),
        ("[[:a]", True),
        (r"\d", False),
        (r"\D", False),
        (r"\w", False),
        (r"\W", False),
        (r"\s", False),
        (r"\S", False),
        (r"[\d-]", False),
        (r"[^\d]", False),
        (r"[^\D]", False),
        (r"[\W]", False),
        (r"[^\s]", False),
        (r"[^\S]", False),
        (r"\u0061", True),
        (r"\x61", True),
        ("a&b", True),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_matches_here_matches_in_python(expression: str, exact: bool) -> None:
    for text in TEXTS:
        here, there = matches(expression, text), re.fullmatch(expression, text) is not None
        assert there or not here, text
        assert here == there or not exact or text == "", text


def test_where_readers_differ_is_said() -> None:
    assert not portable(r"^[a-z]+\.\-$")[1]
    assert portable(r"^\w+$")[1]
    assert portable(r"^[^\s]+$")[1]


@pytest.mark.parametrize("expression", ["a*+b", "a{,3}", "[a", "a{1,2}+"])
def test_what_readers_cannot_agree_on_is_refused(expression: str) -> None:
    with pytest.raises(UnportableError):
        portable(expression)


@pytest.mark.parametrize("expression", ["(?i)a", "^(?i)a$", "(?i:a)b", "(?s-i:a)", "(?m)^a", "a(?u)", r"\pL", r"\p", r"[\PL]", r"\p{^L}"])
def test_what_a_schema_must_not_say_is_refused(expression: str) -> None:
    with pytest.raises(UnportableError, match=r"the inline flag \(\?|is a property only as in"):
        portable(expression)


def test_flags_are_flags_only_where_a_group_begins() -> None:
    for expression in (r"\(?i)", "[(?i)]", "(?:i)", "(?<i>a)"):
        assert portable(expression)[0].replace("\\", "") == expression.replace("\\", "")


def test_flags_that_change_what_spaces_mean_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--regex cannot be honoured: the inline flag \(\?x\) is not known here"):
        matches("(?x)a b", "ab")


@pytest.mark.parametrize(
    ("expression", "yes", "no"),
    [
        (r"\p{L}+", ["a", "é", "日本"], ["1", "", "a1", "p{L}"]),
        (r"\P{L}", ["1", "-"], ["a", "é"]),
        (r"[\p{Lu}0-9]+", ["A1", "É"], ["a", "{"]),
        (r"[^\p{L}]", ["1"], ["a", "é"]),
        (r"\p{Script=Greek}", ["\u03b1"], ["a"]),
        (r"\pL", ["é"], ["1"]),
    ],
)
def test_properties_mean_what_they_say(expression: str, yes: list[str], no: list[str]) -> None:
    assert all(matches(expression, text) for text in yes)
    assert not any(matches(expression, text) for text in no)


atoms = st.sampled_from(["a", "b", "0", r"\d", "[a-c]", "[^a]", ".", r"\w", "é", r"\.", "(?:ab|c)", "(x|yy)", r"[^\d]"])
expressions = st.lists(st.tuples(atoms, st.sampled_from(["", "*", "+", "?", "{2}", "{2,3}"])), min_size=1, max_size=5).map(
    lambda parts: "".join(atom + repeat for atom, repeat in parts)
)


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(expressions)
def test_an_example_matches(expression: str) -> None:
    text = example(expression)
    assert text is not None
    assert re.fullmatch(expression, text, flags=re.DOTALL)


@pytest.mark.parametrize("expression", [r"(a)\1", "(?=a)a", "[", "(?!a)", "a{5000}"])
def test_no_example_is_no_error(expression: str) -> None:
    assert example(expression) is None
