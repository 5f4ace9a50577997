"""Schemas are kept or refused by name: what the grammar library would take in a wider sense than a validator is narrowed first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tgen.constraint.grammar import Grammar, byte_vocabulary
from tgen.errors import UsageError
from tgen.options import read_constraint

BYTES = byte_vocabulary()


def allows(schema: Any, text: str) -> bool:
    constraint = read_constraint({"json_schema": schema})
    assert constraint is not None
    matcher = Grammar(constraint).matcher(BYTES)
    return matcher.take(text.encode()) and matcher.accepting


OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"uniqueItems": True}, '"uniqueItems" cannot be honoured'),
        ({"if": {}, "then": {}}, '"if", "then" cannot be honoured'),
        ({"not": {"enum": [1]}}, '"not" cannot be honoured'),
        ({"properties": {"a": {"contains": {}}}}, '"contains" cannot be honoured'),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, '"oneOf" of alternatives that may overlap'),
        ({"type": "string", "format": "path"}, '"format": "path" is not known'),
        ({"type": "string", "pattern": "(?=a)b"}, '"pattern" cannot be honoured: look-around'),
        ({"type": "string", "pattern": r"(a)\1"}, '"pattern" cannot be honoured: backreferences'),
        ({"type": "string", "pattern": "a*+"}, "\"pattern\" 'a*+' cannot be honoured"),
        ({"type": "string", "pattern": "^(?i)abc$"}, "\"pattern\" '^(?i)abc$' cannot be honoured: the inline flag (?i) is not known"),
        ({**OBJECT, "patternProperties": {"^(?i:a)": {}}}, "\"patternProperties\" '^(?i:a)' cannot be honoured: the inline flag (?i)"),
        ({"type": "string", "pattern": r"^\pL$"}, "cannot be honoured: \\p is a property only as in"),
        ({**OBJECT, "minProperties": 2.0}, '"minProperties": 2 with 0 required names'),
        ({"type": "string", "minLength": 2.5}, "'minLength', got 2.5"),
        ({**OBJECT, "minProperties": 2}, '"minProperties": 2 with 0 required names'),
        ({**OBJECT, "minProperties": 1, "properties": {"a": {}}}, '"minProperties" or "maxProperties" beside "properties"'),
        ({**OBJECT, "patternProperties": {r"^\d$": {}}}, '"patternProperties"'),
        ({"multipleOf": 0.7}, '"multipleOf": 0.7'),
        ({"const": 2**53 + 1}, '"const" with a number beyond 2^53'),
        ({"minimum": -(2**60)}, '"minimum" with a number beyond 2^53'),
        ({"$ref": "http://example.org/other"}, '"$ref" cannot be honoured'),
        ({"type": "colour"}, "Invalid type: colour"),
        ({"enum": []}, "no text satisfies it"),
        ({**OBJECT, "required": ["a"], "additionalProperties": False}, "no text satisfies it: required property 'a'"),
        (False, "is false, which no text satisfies"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: Any, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        allows(schema, "")
    assert words in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        # A name that is taken cannot come again under an escape.
        ({**OBJECT, "properties": {"a": {"type": "integer"}, "b/": {}}}, ['{"a":1,"x":"\\n"}'], ['{"\\u0061":"x"}', '{"b\\/":1}']),
        ({"pattern": r"^\W$"}, ['"-"', "1"], ['"é"', '"a"']),
        ({"pattern": "^[^\\s]$"}, ['"a"', '"é"'], ['"\u00a0"', '" "']),
        ({"patternProperties": {r"^\d+$": {"type": "null"}}, "additionalProperties": False}, ['{"12":null}'], ['{"٣":null}', '{"a":1}']),
        ({"format": "date"}, ['"2024-02-29"', '"2023-02-28"', "1"], ['"2023-02-29"', '"1900-02-29"', '"0000-01-01"', '"2023-1-01"']),
        ({"format": "date", "pattern": "^20"}, ['"2024-02-29"'], ['"1999-01-01"']),
        (
            {"format": "date-time"},
            ['"2000-02-29T23:59:59.5Z"', '"2001-01-01T00:00:00+01:00"'],
            ['"2001-02-29T00:00:00Z"', '"2001-01-01T00:00:60Z"'],
        ),
        ({"format": "time"}, ['"12:00:00Z"'], ['"24:00:00Z"', '"12:00:60Z"']),
        ({"type": "number", "multipleOf": 0.01}, ["0", "-7"], ["0.29", "0.5"]),
        ({"type": ["number", "null"], "multipleOf": 5}, ["10", "null"], ["10.0", "7"]),
        # Of bounds less than 1 apart the library allows a whole one that is excluded.
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ["0.01", "0.5"], ["0", "0.0", "-0"]),
        ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, ["-0.01", "-0.5"], ["0", "-0", "-0.0"]),
        ({"allOf": [{"exclusiveMinimum": 5}, {"maximum": 5.5, "minimum": 1}], "type": "number"}, ["5.5", "5.1"], ["5", "5.0"]),
        ({"type": ["number", "null"], "exclusiveMinimum": 5}, ["6", "5.1", "null"], ["5", "5.0"]),
        ({"exclusiveMinimum": 2**52, "type": "number"}, [str(2**52 + 1)], [str(2**52)]),
        ({"dependencies": {"a": ["b"]}, "properties": {"a": {}, "b": {}}}, ['{"b":1}', '{"a":1,"b":1}', "{}", "[]"], ['{"a":1}']),
        ({"dependentSchemas": {"a": {"required": ["c"]}}}, ["{}"], ['{"a":1}']),
        ({"properties": {"a": {"not": {}}}}, ["{}", '{"b":1}'], ['{"a":1}']),
        ({"not": {"required": ["a", "b"]}, "properties": {"a": {}, "b": {}}}, ['{"a":1}', '{"b":1}'], ['{"a":1,"b":1}', "1"]),
        ({"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, ['{"c":1}'], ['{"a":1}', '{"b":1}']),
        # Whole numbers that are written as floats.
        ({"type": "array", "minItems": 2.0, "maxItems": 3.0}, ["[1,2]", "[1,2,3]"], ["[1]", "[1,2,3,4]"]),
        ({"type": "string", "minLength": 1.0, "maxLength": 2e0}, ['"a"', '"ab"'], ['""', '"abc"']),
        ({**OBJECT, "minProperties": 1.0, "maxProperties": 1.0}, ['{"a":1}'], ["{}", '{"a":1,"b":2}']),
        # Data that looks like a schema, and the library's own switches, which are not for a schema to set.
        ({"enum": [{"pattern": "a*+", "format": "date"}]}, ['{"pattern":"a*+","format":"date"}'], ["{}"]),
        ({"x-guidance": {"whitespace_flexible": True}, "type": "array"}, ["[1,2]"], ["[1, 2]"]),
        ({"properties": {"pattern": {"type": "integer"}, "not": {"type": "null"}}}, ['{"pattern":1}', '{"not":null}'], ['{"pattern":"a"}']),
        (True, ["1", '{"a":[]}'], ["", "nul"]),
    ],
)
def test_a_schema_is_narrowed_and_no_more(schema: Any, valid: list[str], invalid: list[str]) -> None:
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for text in valid:
        assert allows(schema, text), text
        if "dependencies" not in str(schema):  # which this draft has forgotten
            assert validator.is_valid(json.loads(text)), text
    for text in invalid:
        assert not allows(schema, text), text


def test_a_property_of_unicode_is_honoured() -> None:
    """Apart from the others because the validator, which is Python's, knows none."""
    schema = {"type": "string", "pattern": r"^\p{L}+$"}
    assert all(allows(schema, text) for text in ('"a"', '"é"', '"日本"'))
    assert not any(allows(schema, text) for text in ('"1"', '""', '"p{L}"', '"a1"'))


def test_a_bound_is_excluded_as_draft_4_says_it() -> None:
    schema = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 0.5}
    assert allows({"$schema": "http://json-schema.org/draft-04/schema#", **schema}, "0.25")
    assert not allows({"$schema": "http://json-schema.org/draft-04/schema#", **schema}, "0")
