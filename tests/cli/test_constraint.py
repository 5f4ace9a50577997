"""`--json-schema`, `--regex` and `--choices` on the command line: valid texts, and mistakes explained before a model is loaded."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.cli.test_usage import imported_by

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
SCHEMA = json.dumps(PERSON)
MODEL = ["-m", golden("gpt2"), "-n", "40"]


@pytest.mark.parametrize("seed", range(3))
def test_json_fits_a_schema_from_a_file_or_an_argument(ask: Ask, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "person.json"
    path.write_text(SCHEMA)
    text = ask("generate", "x", *MODEL, "--seed", str(seed), "--json-schema", SCHEMA).out
    Draft202012Validator(PERSON).validate(json.loads(text))
    assert ask("generate", "x", *MODEL, "--seed", str(seed), "--json-schema", path).out == text


def test_a_pattern_and_choices(ask: Ask) -> None:
    assert re.fullmatch("[A-Z][a-z]{2}-[0-9]+", ask("generate", "x", *MODEL, "--regex", "[A-Z][a-z]{2}-[0-9]+").out)
    assert ask("generate", "x", *MODEL, "--choices", "yes,no").out in ("yes", "no")
    assert ask("generate", "x", *MODEL, "--choices", '["a, b"]', "--choices", "c").out in ("a, b", "c")
    assert ask("generate", "x", "-m", golden("t5"), "-n", "9", "--choices", "oui,non").out in ("oui", "non")
    assert ask("generate", "x", "-m", "english-french", "-n", "9", "--regex", " ?(oui|non)").out.strip() in ("oui", "non")


def test_the_end_is_no_cut(ask: Ask) -> None:
    said = ask("generate", "x", *MODEL, "--json-schema", SCHEMA, "--json", "--fail-on-length", "--samples", "3", "--seed", "1").json
    assert [choice["finish_reason"] for choice in said["choices"]] == ["stop"] * 3
    for choice in said["choices"]:
        Draft202012Validator(PERSON).validate(json.loads(choice["text"]))


@pytest.mark.parametrize("options", [["--json-schema", SCHEMA], ["--regex", "[a-z ]+'\\d"], ["--choices", "a b,c"]])
def test_verbose_prints_a_command_that_repeats_the_text(ask: Ask, options: list[str]) -> None:
    said = ask("generate", "x", *MODEL, *options, "--temperature", "2", "-v")
    [command] = [line for line in said.err.splitlines() if line.startswith("tgen generate")]
    assert ask(*shlex.split(command)[1:]).out == said.out


def test_explain_draws_the_same(ask: Ask) -> None:
    options = ["x", *MODEL, "--regex", "[a-c]{5}", "--temperature", "2", "--seed", "2"]
    steps = [json.loads(line) for line in ask("explain", *options, "--json").out.splitlines()]
    assert "".join(step["text"] for step in steps) == ask("generate", *options).out
    assert all(row["cut_by"] == "rules" for row in steps[0]["candidates"] if row["text"] not in "abc")
    assert "cut" in ask("explain", *options).out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json-schema", '{"not": {"enum": [1]}}'], ['--json-schema: "not" cannot be honoured', 'remove "not"']),
        (["--json-schema", '{"items": {"maxlength": 5}}'], ['"maxlength" is not known', 'do you mean "maxLength"?']),
        (
            ["--json-schema", '{"type": "string", "format": "date_time"}'],
            ['"format": "date_time" is not known', 'do you mean "date-time"?'],
        ),
        (["--json-schema", '{"enum": []}'], ['"enum" is empty, so no text satisfies it', "list what is allowed"]),
        (["--json-schema", '{"type": '], ["--json-schema is not JSON"]),
        (["--json-schema", "missing.json"], ["cannot read missing.json: No such file", "starts with {"]),
        (["--json-schema", "."], ["cannot read .: Is a directory"]),
        (["--json-schema", '{"pattern": "(?=a)"}'], ['"pattern" cannot be honoured: look-around']),
        (["--regex", "("], ["--regex cannot be honoured: unclosed group", "Rust's regex crate"]),
        (["--regex", "(?=a)b"], ["--regex cannot be honoured: look-around, including look-ahead", "without lookaround"]),
        (["--regex", r"\bno\b"], ["--regex cannot be honoured", "word borders"]),
        (["--choices", "a,,b"], ["--choices must not be empty", "commas"]),
        (["--choices", "[a"], ["--choices is not a JSON list"]),
        (["--choices", "\udcff"], ["--choices is not UTF-8"]),
        (["--choices", "a", "--regex", "b"], ["--regex and --choices exclude each other"]),
        (["--choices", "a", "--num-beams", "2"], ["--choices and --num-beams exclude each other"]),
        (["--choices", "a", "--stop", "b"], ["--choices and --stop exclude each other", "where the text ends"]),
        (["--choices", "a", "--ignore-eos"], ["--choices and --ignore-eos exclude each other"]),
    ],
)
def test_a_mistake_is_explained_before_a_model_is_looked_for(ask: Ask, options: list[str], words: list[str]) -> None:
    err = ask("generate", "x", "-m", "no such model", *options, code=2).err
    assert [word for word in words if word not in err] == [], err


def test_numbers_keep_to_their_format(ask: Ask) -> None:
    schema = '{"type":"array","items":{"type":"number","format":"uint8"},"minItems":4}'
    for seed in range(3):
        numbers = ask("generate", "x", *MODEL, "--seed", str(seed), "--json-schema", schema).json
        assert [number for number in numbers if not (isinstance(number, int) and 0 <= number <= 255)] == []


def test_a_note_names_words_that_are_read_as_annotations(ask: Ask) -> None:
    schema = '{"type":"integer","faker":"age","items":{"alias":"a","x-view":1,"title":"t"}}'
    err = ask("generate", "x", *MODEL, "--json-schema", schema).err
    assert 'note: --json-schema: read as an annotation, which changes nothing: "faker", "alias"' in err
    assert "annotation" not in ask("generate", "x", *MODEL, "--json-schema", SCHEMA).err


def test_too_little_room_says_how_much_is_needed(ask: Ask) -> None:
    err = ask("generate", "x", "-m", golden("gpt2"), "-n", "5", "--json-schema", SCHEMA, code=2).err
    found = re.search(r"needs at least (\d+) new tokens, --max-new-tokens is 5\nhint: use --max-new-tokens \1 or more", err)
    assert found, err
    text = ask("generate", "x", "-m", golden("gpt2"), "-n", found[1], "--json-schema", SCHEMA).out
    Draft202012Validator(PERSON).validate(json.loads(text))


def test_the_grammar_library_is_imported_only_when_needed() -> None:
    command_lines = [["--help"], ["generate", "--help"], ["generate", "x", "--regex", "a", "--choices", "b"], ["generate", "x", "-m", "no"]]
    assert imported_by(command_lines, ["llguidance", "torch", "tokenizers", "numpy"]) == []
    assert imported_by([["generate", "x", "-m", "no", "--json-schema", '{"not": {}, "if": {}}']], ["torch", "tokenizers"]) == []
