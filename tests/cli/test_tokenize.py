"""`tgen tokenize`: there and back again, in each of its forms."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import golden

MODEL = ("-m", golden("gpt2"))
TEXT = "Once <upon> a\ttime, été"


@pytest.mark.parametrize("form", ["--ids", "--json"])
def test_what_it_writes_it_reads(ask: Ask, form: str) -> None:
    written = ask("tokenize", TEXT, form, *MODEL).out
    assert ask("tokenize", "--decode", *MODEL, stdin=written.encode()).out == TEXT


def test_ids_in_any_form(ask: Ask) -> None:
    ids = ask("tokenize", "abc", "--json", *MODEL).json["ids"]
    spaced = " ".join(map(str, ids))
    for given in (spaced, spaced.replace(" ", ", "), f" [{spaced.replace(' ', ',')}]", f'{{"ids": {ids}, "pieces": null}}'):
        assert ask("tokenize", "--decode", given, *MODEL).out == "abc"
        assert ask("tokenize", "--decode", given, "--json", *MODEL).json == {"ids": ids, "text": "abc"}
    assert ask("tokenize", "--decode", "[]", *MODEL).out == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1 x", "'x' is not a token id"),
        ("[1, 2.0]", "'2.0' is not a token id"),
        ("[true]", "'True' is not a token id"),
        ("[[1]]", "is not a token id"),
        ("[-1]", "'-1' is not a token id"),
        ("[" + "9" * 5000 + "]", "is not a token id"),
        ("[1, 2", "not JSON, though they begin like it"),
        ("[" * 100_000, "not JSON, though they begin like it"),
        ('{"id": [1]}', "no list of ids"),
        ('{"ids": 1}', "no list of ids"),
    ],
)
def test_what_are_no_ids(ask: Ask, given: str, words: str) -> None:
    said = ask("tokenize", "--decode", *MODEL, stdin=given.encode(), code=2).err
    assert words in said
    assert "hint: " in said


def test_ids_are_read_or_written(ask: Ask) -> None:
    assert "--decode and --ids exclude each other" in ask("tokenize", "--decode", "--ids", "1", *MODEL, code=2).err
