"""A schema's patterns match nothing that Python's `re` does not, examples match, and --regex has one dialect."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgen.constraint.grammar import Grammar, byte_vocabulary
from tgen.constraint.pattern import UnportableError, example, read_pattern
from tgen.errors import UsageError
from tgen.values import Constraint

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
    """Whether --regex lets a text through."""
    matcher = Grammar(Constraint("regex", expression)).matcher(BYTES)
    return matcher.take(text.encode()) and matcher.accepting


def fits(expression: str, text: str) -> bool:
    """Whether a schema's pattern lets a text through, as a whole."""
    schema = {"type": "string", "pattern": f"^(?:{expression})$"}
    matcher = Grammar(Constraint("json-schema", json.dumps(schema))).matcher(BYTES)
    return matcher.take(json.dumps(text, ensure_ascii=False).encode()) and matcher.accepting


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
        here, there = fits(expression, text), re.fullmatch(expression, text) is not None
        assert there or not here, text
        assert here == there or not exact or text in ("", "\x1c"), text  # JSON has no control characters here, but as escapes


def test_where_readers_differ_is_said() -> None:
    assert not read_pattern(r"^[a-z]+\.\-$").differs
    assert read_pattern(r"^\w+$").differs
    assert read_pattern(r"^[^\s]+$").differs


@pytest.mark.parametrize("expression", ["a*+b", "a{,3}", "[a", "a{1,2}+"])
def test_what_readers_cannot_agree_on_is_refused(expression: str) -> None:
    with pytest.raises(UnportableError):
        read_pattern(expression)


@pytest.mark.parametrize("expression", ["(?i)a", "^(?i)a$", "(?i:a)b", "(?s-i:a)", "(?m)^a", "a(?u)", r"\pL", r"\p", r"[\PL]", r"\p{^L}"])
def test_what_a_schema_must_not_say_is_refused(expression: str) -> None:
    with pytest.raises(UnportableError, match=r"the inline flag \(\?|is a property only as in"):
        read_pattern(expression)


def test_flags_are_flags_only_where_a_group_begins() -> None:
    for expression in (r"\(?i)", "[(?i)]", "(?:i)", "(?<i>a)"):
        assert read_pattern(expression).text.replace("\\", "") == expression.replace("\\", "")


@pytest.mark.parametrize(
    ("expression", "yes", "no"),
    [
        ("^a$", ["a"], ["", "aa"]),
        ("^a|b$", ["a", "b"], ["ab"]),
        ("(^|,)a", ["a", ",a"], [""]),
        (r"\A[a-z&&[^b]]\z", ["a", "c"], ["b"]),
        ("(?i)A(?-i)b", ["ab", "Ab"], ["aB"]),
        ("(?x) a  b", ["ab"], ["a b"]),
        (".", ["a", "é"], ["\n"]),
        ("(?s).", ["\n"], ["ab"]),
        (r"\d\w\s", ["1a ", "1_\t"], ["٣a ", "1é ", "1a\u00a0"]),
        (r"[\w-]\W[^\d]", ["-é٣"], ["é-a", "aaa", "a-1"]),
        ("[[:alpha:]]/", ["a/"], ["1/", "a"]),
        ("", [""], ["a"]),
    ],
)
def test_a_regex_means_what_it_means_in_rust(expression: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not matches(expression, text)] == []
    assert [text for text in no if matches(expression, text)] == []


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(?=a)b", "look-around, including look-ahead and look-behind, is not supported"),
        ("(?<!a)b", "look-around, including look-ahead and look-behind, is not supported"),
        (r"(a)\1", "backreferences are not supported"),
        (r"\bno\b", "lookarounds not supported yet; WordUnicode"),
        ("a$b", "lookarounds not supported yet; End"),
        ("a{,3}", "repetition quantifier expects a valid decimal"),
        ("(", "unclosed group"),
        ("[a", "unclosed character class"),
    ],
)
def test_what_a_regex_cannot_say_is_refused_by_name(expression: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        matches(expression, "")
    assert refused.value.message.startswith(f"--regex cannot be honoured: {words}")
    assert refused.value.hint is not None
    assert "Rust's regex crate, without lookaround, back-references, word borders" in refused.value.hint


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


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("^(ab|c)$", "c"),
        ("(?:x{3}|(?<n>[^0]y))+", "ay"),
        (r"\u0041\u{42}", "AB"),
        ("(a{2,3}|b)?c*", ""),
        ("[]&|~[-]", "-"),
        (r"[^\W\d]\.", "a."),
        ("(|a)b", "b"),
    ],
)
def test_an_example_is_short(expression: str, text: str) -> None:
    assert example(expression) == text


@pytest.mark.parametrize("expression", [r"(a)\1", "(?=a)a", "[", "(?!a)", "a{5000}", "(a{99}){99}", r"\p{L}", "(a", "a++", "(?x)a"])
def test_no_example_is_no_error(expression: str) -> None:
    assert example(expression) is None
