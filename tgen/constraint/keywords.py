"""The words of JSON Schema: finds the schemas within a schema, and the unknown words that are likely to be misspelt keywords.

JSON Schema reads a word that it does not know as an annotation, and an annotation cannot change what is valid. So a schema may hold any
unknown word, unless that word looks like a keyword that does change it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from tgen.errors import UsageError

# Keywords that hold schemas by name, and keywords that hold one schema or a list of them; some hold nothing but a list.
NAMED = frozenset("properties patternProperties dependentSchemas dependentRequired dependencies $defs definitions".split())
NESTED = frozenset(
    "items prefixItems additionalItems unevaluatedItems contains additionalProperties unevaluatedProperties propertyNames".split()
    + "allOf anyOf oneOf not if then else".split()
)
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
# Keywords that change what is valid: those above, and these.
KEYWORDS = (NAMED - {"$defs", "definitions"}) | NESTED
KEYWORDS |= frozenset(
    "$ref $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor type enum const required format pattern".split()
    + "minLength maxLength minItems maxItems uniqueItems minContains maxContains minProperties maxProperties".split()
    + "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split()
)
# Keywords of JSON Schema and OpenAPI that tgen may ignore. `nullable` only allows more: a text is valid without it, too.
ANNOTATIONS = frozenset(
    "$schema $id id $anchor $vocabulary $comment $defs definitions title description default examples deprecated readOnly".split()
    + "writeOnly contentEncoding contentMediaType contentSchema example nullable discriminator xml externalDocs".split()
)
# Words of older drafts and of other languages that do change what is valid.
FOREIGN = {"divisibleBy": "multipleOf", "disallow": "not", "extends": "allOf", "min": "minimum", "max": "maximum", "constant": "const"}
# An unknown word with one of these in it looks as if it bounded something. It is refused, because as an annotation it would bound nothing.
BOUNDING = re.compile(
    r"min(?!or|e|d)|max|len(?:gth)?(?![a-z])|lenght|size|regex|pattern|uniq|require|optional|choices|^values?$|range|between|step$|precision"
    r"|multiple|exclusive|prohibit|forbid|allow|property$|fields$",
    re.IGNORECASE,
)
# A word that starts like this is an annotation by convention.
MARKED = ("x-", "_", "@")
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def subschemas(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema and every schema that its keywords and references lead to. Raises UsageError for a value that is not a schema."""
    found: dict[int, dict[str, Any]] = {}
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        key, schema = waiting.pop()
        if not isinstance(schema, dict | bool):
            raise UsageError(
                f'--json-schema: "{key}" holds {json.dumps(schema)[:60]}, not a schema', "a schema is an object, true or false"
            )
        if isinstance(schema, dict) and id(schema) not in found:
            found[id(schema)] = schema
            waiting += reversed([*_inner(schema), *_referred(root, schema.get("$ref"))])
    return list(found.values())


def check_keywords(schemas: Iterable[dict[str, Any]]) -> list[str]:
    """The unknown words of these schemas. Raises UsageError for an unknown word or value that may change what is valid."""
    unknown: dict[str, None] = {}
    for schema in schemas:
        _check_values(schema)
        for word in schema:
            if word in KEYWORDS or word in ANNOTATIONS or word.startswith(MARKED):
                continue
            meant = FOREIGN.get(word)
            near = sorted(keyword for keyword in KEYWORDS if _alike(word, keyword)) or (sorted(KEYWORDS) if BOUNDING.search(word) else [])
            if meant is None and near:
                meant = difflib.get_close_matches(word, near, 1, cutoff=0)[0]
            if meant is not None:
                raise UsageError(f'--json-schema: "{word}" is not known', f'do you mean "{meant}"? If not, call it "x-{word}"')
            unknown[word] = None
    return list(unknown)


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint that names the known word nearest to one that is not known."""
    close = difflib.get_close_matches(word.lower(), known, 1)
    return f'do you mean "{close[0]}"?' if close else otherwise


def _inner(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas that a schema holds, each with its keyword."""
    for key, value in schema.items():
        if key in NAMED:
            if not isinstance(value, dict):
                raise UsageError(f'--json-schema: "{key}" must be an object, not {json.dumps(value)[:60]}', "it maps names to schemas")
            # A dependency may be a list of names.
            yield from ((key, inner) for inner in value.values() if not (key.startswith("depend") and isinstance(inner, list)))
        elif key in LISTS and not isinstance(value, list):
            raise UsageError(f'--json-schema: "{key}" must be a list of schemas, not {json.dumps(value)[:60]}', "write [ and ] around it")
        elif key in NESTED:
            yield from ((key, inner) for inner in (value if isinstance(value, list) else [value]))


def _referred(root: Any, reference: object) -> list[tuple[str, Any]]:
    """The target of a reference into the same schema; the grammar library refuses a reference without a target."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return []
    try:
        for part in unquote(reference[2:]).split("/"):
            root = root[int(part)] if isinstance(root, list) else root[part.replace("~1", "/").replace("~0", "~")]
    except (KeyError, IndexError, ValueError, TypeError):
        return []
    return [("$ref", root)]


def _check_values(schema: dict[str, Any]) -> None:
    for key in ("enum", "type", "anyOf", "oneOf"):
        if schema.get(key) == []:
            raise UsageError(f'--json-schema: "{key}" is empty, so no text satisfies it', f'remove "{key}", or list what is allowed')
    required = schema.get("required", [])
    if not isinstance(required, list):
        raise UsageError(
            f'--json-schema: "required" must be a list of names, not {json.dumps(required)[:60]}',
            "it belongs beside the properties that it names",
        )
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in TYPES:
            raise UsageError(
                f'--json-schema: "type": {json.dumps(kind)[:60]} is not known',
                nearest(str(kind), TYPES, f"the types are {', '.join(TYPES)}"),
            )


def _alike(word: str, keyword: str) -> bool:
    """Whether a word is a keyword but for case, hyphens, and one letter too many, missing, wrong or swapped with the next.

    In a keyword of eight letters and more, two letters in a row may be wrong.
    """
    left, right = word.lower().replace("-", "").replace("_", ""), keyword.lower()
    same = left == right
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    # One letter can make a keyword of three letters or fewer another word: `not` and `note`, `if` and `id`.
    wrong = 2 if len(keyword) >= 8 else 1
    return same or (len(keyword) > 3 and (max(len(left), len(right)) <= wrong or (len(left) == 2 and left == right[::-1])))
