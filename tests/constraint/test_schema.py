"""Schemas are kept or refused by name: what the grammar library would take in a wider sense than a validator is narrowed first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tgen.constraint.grammar import Grammar, byte_vocabulary, check
from tgen.errors import UsageError
from tgen.values import read_constraint

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
        ({"minimum": 2**60}, '"minimum" with a number beyond 2^53'),
        ({"exclusiveMinimum": -(2**60)}, '"exclusiveMinimum" with a number beyond 2^53'),
        ({"$ref": "http://example.org/other"}, '"$ref" cannot be honoured'),
        ({"$ref": "#/$defs/a"}, '"$ref" cannot be honoured: the schema does not hold its target'),
        ({"$ref": "#a"}, '"$ref" cannot be honoured: the schema does not hold its target'),
        ({"allOf": {}}, '"allOf" must be a list of schemas, not {}'),
        ({"type": "colour"}, '"type": "colour" is not known'),
        ({"type": ["string", {"type": "integer"}]}, '"type": {"type": "integer"} is not known'),
        ({"enum": []}, '"enum" is empty, so no text satisfies it'),
        ({"properties": {"a": {"anyOf": []}}}, '"anyOf" is empty, so no text satisfies it'),
        ({"type": []}, '"type" is empty, so no text satisfies it'),
        ({"type": "string", "const": 5}, "no text satisfies it: incompatible types"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "no text satisfies it: minimum (5) is greater than maximum (3)"),
        ({"type": "integer", "format": "uint8", "minimum": 256}, "no text satisfies it: minimum (256) is greater than maximum (255)"),
        ({"properties": {"a": {"type": "string", "required": True}}}, '"required" must be a list of names, not true'),
        ({"properties": {"a": 5}}, '"properties" holds 5, not a schema'),
        ({"$defs": {"unused": {"items": "a"}}}, '"items" holds "a", not a schema'),
        ({"definitions": []}, '"definitions" must be an object, not []'),
        ({"minimum": "3"}, "Expected number for 'minimum', got \"3\""),
        ({**OBJECT, "required": ["a"], "additionalProperties": False}, "no text satisfies it: required property 'a'"),
        (False, "is false, which no text satisfies"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: Any, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        allows(schema, "")
    assert words in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("schema", "word", "hint"),
    [
        ({"type": "string", "maxlength": 5}, '"maxlength" is not known', 'do you mean "maxLength"? If not, call it "x-maxlength"'),
        ({"items": {"anyOf": [{"additonalProperties": False}]}}, '"additonalProperties"', 'do you mean "additionalProperties"?'),
        ({"$defs": {"unused": {"emum": ["a"]}}}, '"emum"', 'do you mean "enum"?'),
        ({"properties": {"a": {"item": {}}}}, '"item"', 'do you mean "items"?'),
        ({"propertys": {}}, '"propertys"', 'do you mean "properties"?'),
        ({"adittionalProperties": False}, '"adittionalProperties"', 'do you mean "additionalProperties"?'),
        ({"min-length": 3}, '"min-length"', 'do you mean "minLength"?'),
        ({"tpye": "string"}, '"tpye"', 'do you mean "type"?'),
        ({"oneof": []}, '"oneof"', 'do you mean "oneOf"?'),
        ({"min": 3}, '"min"', 'do you mean "minimum"?'),
        ({"type": "integer", "divisibleBy": 3}, '"divisibleBy"', 'do you mean "multipleOf"?'),
        ({"files": {"part": {"maxitems": 3}}, "$ref": "#/files/part"}, '"maxitems"', 'do you mean "maxItems"?'),
        ({"type": "String"}, '"type": "String" is not known', 'do you mean "string"?'),
        ({"type": "string", "format": "datetime"}, '"format": "datetime" is not known', 'do you mean "date-time"?'),
        ({"type": "string", "format": "int64"}, '"format": "int64" is not known', 'use "pattern"'),
        ({"type": "integer", "format": "Int32"}, '"format": "Int32" is not known', 'do you mean "int32"?'),
        ({"type": "number", "format": "currency"}, '"format": "currency" is not known', 'use "minimum" and "maximum"'),
    ],
)
def test_a_misspelt_word_is_refused_and_the_nearest_known_one_is_named(schema: Any, word: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        allows(schema, "")
    assert word in refused.value.message
    assert refused.value.hint is not None
    assert hint in refused.value.hint


def test_an_annotation_changes_nothing_and_an_unknown_word_is_told() -> None:
    annotations = {
        "title": "t",
        "readOnly": True,
        "example": 3,
        "discriminator": {"propertyName": "a"},
        "xml": {},
        "contentEncoding": "base64",
    }
    assert told({"type": "integer", **annotations, "x-maxlength": 5, "_format": "date", "@type": "a"}) == []
    assert told({"properties": {"a": {"note": 1}, "maxlength": {"faker": {"maxlength": 3, "enum": []}}}}) == ["note", "faker"]
    assert allows({"type": "integer", "x-view": {"pattern": "a*+", "maxlength": 3}}, "12")


def told(schema: Any) -> list[str]:
    constraint = read_constraint({"json_schema": schema})
    assert constraint is not None
    return check(constraint)


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
        # Formats of numbers.
        ({"type": "integer", "format": "int32"}, [str(2**31 - 1), str(-(2**31)), "0"], [str(2**31), str(-(2**31) - 1)]),
        ({"type": "number", "format": "int64"}, ["200", str(2**53)], ["200.5", "1e5", str(2**63)]),
        ({"format": "uint8"}, ["255", "0", '"a"', "null"], ["256", "-1", "0.5"]),
        ({"type": "integer", "format": "uint16", "minimum": 5, "maximum": 10**6}, ["5", "65535"], ["4", "65536"]),
        ({"type": "integer", "format": "uint32", "minimum": -5, "maximum": 9}, ["0", "9"], ["-1", "10"]),
        ({"type": ["integer", "null"], "format": "uint64"}, ["7", "null"], ["-1", "7.5"]),
        ({"type": "number", "format": "float", "exclusiveMinimum": 0}, ["0.5"], ["0", "1e999"]),
        ({"type": "number", "format": "double"}, ["0.5", "-3"], ["1e999", "-1E999"]),
        ({"properties": {"a": {"type": "integer", "format": "int8"}}}, ['{"a":-128}'], ['{"a":128}']),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["-12", str(2**53)], ["0.5"]),
        ({"type": "integer", "format": "date-time"}, ["12"], ['"2000-01-01T00:00:00Z"']),
        ({"type": "array", "format": "table", "uniqueItems": False}, ["[1,1]"], ["1"]),
        # Names that are required and not described.
        ({**OBJECT, "properties": {"a": {}}, "required": ["b"]}, ['{"b":1}', '{"a":1,"b":2}'], ["{}", '{"a":1}']),
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
