"""A JSON Schema made safe for the grammar library: a keyword that it reads in a wider sense than a validator is narrowed or refused.

Narrowing is sound, since a text that fits the narrower schema fits the wider one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, TypeGuard

from tgen.constraint.keywords import KEYWORDS, TYPES, nearest
from tgen.constraint.pattern import Pattern, UnportableError, example, read_pattern
from tgen.errors import UsageError

# From here on a float cannot tell a whole number from its neighbours.
EXACT = 2**53
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
# An excluded bound moves inwards by this part of itself, or by this much where it is below 1. A float still shows the difference.
INWARDS = 1e-9
# This many multiples of a step are divided as a validator does it, which takes a few milliseconds.
MULTIPLES = 20_000

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
# The library also allows 29 February in every year, the year 0, second 60, and hosts of any length.
FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL}){{0,2}}\.[a-zA-Z]{{2,24}}$",
}

# The least and the greatest number of each format. The wide formats end where the library can no longer tell whole numbers apart.
NUMBERS = {f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32)}
NUMBERS |= {f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32)}
FRACTIONS = ("float", "double")
NUMBERS |= {"uint": (0, EXACT), "uint64": (0, EXACT), **dict.fromkeys(("int", "int64", *FRACTIONS), (-EXACT, EXACT))}

# The shortest text of each format that the library knows.
SHORTEST = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "a@a",
    "hostname": "a.aa",
    "ipv4": "0.0.0.0",
    "ipv6": "::",
    "uri": "a:",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def required_names(schemas: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Every property name that one of these schemas requires."""
    return frozenset(name for schema in schemas for name in schema.get("required", ()) if isinstance(name, str))


def examples(schemas: Iterable[dict[str, Any]]) -> frozenset[str]:
    """A text that fits for each pattern, format and range of numbers in these schemas, as JSON without a string's first quote."""
    found: set[str] = set()
    for schema in schemas:
        patterns = [schema.get("pattern"), *schema.get("patternProperties", ())]
        texts = [text for pattern in patterns if isinstance(pattern, str) and (text := example(pattern))]
        if isinstance(kind := schema.get("format"), str) and kind in SHORTEST:
            texts.append(SHORTEST[kind])
        found.update(json.dumps(text, ensure_ascii=False)[1:] for text in texts)
        found.update([number] if (number := _number(schema)) else [])
    return frozenset(found)


def _number(schema: dict[str, Any]) -> str | None:
    """A short number within a schema's bounds, if it has any."""
    keys = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
    least, above, most, below, step = (value if type(value := schema.get(key)) in (int, float) else None for key in keys)
    if (least, above, most, below, step) == (None,) * 5:
        return None
    low = max((bound for bound in (least, above) if bound is not None), default=-math.inf)
    high = min((bound for bound in (most, below) if bound is not None), default=math.inf)
    start = low if low > 0 else high if high < 0 else 0
    unit = step or 1
    if not math.isfinite(start / unit):
        return None
    found = [0, *(round(start / unit + more) * unit for more in (-1, 0, 1)), *([] if step else [(low + high) / 2])]
    fits = [number for number in found if low <= number <= high and number not in (above, below)]
    return min((str(number) for number in fits if "e" not in str(number)), key=len, default=None)


def narrow(schema: dict[str, Any]) -> None:
    """Change a schema, not those within it, into one to compile. Raises UsageError, naming a keyword that tgen cannot keep."""
    for key in ("enum", "const"):
        _check_numbers(key, schema.get(key))
    # A whole number may be written as 2.0; the library wants 2.
    schema.update({key: int(value) for key in COUNTS if isinstance(value := schema.get(key), float) and value.is_integer()})
    if schema.get("uniqueItems") is False:  # the library refuses it, although it asks for nothing
        del schema["uniqueItems"]
    _narrow_formats(schema)
    _narrow_strings(schema)
    _narrow_numbers(schema)
    _narrow_objects(schema)
    parts = _dependencies(schema)
    if "not" in schema and (opposite := _opposite(schema["not"])) is not None:
        del schema["not"]
        parts.append(opposite)
    if parts:
        schema["allOf"] = [*schema.get("allOf", []), *parts]


def _kinds(schema: dict[str, Any]) -> list[str]:
    """The types that a schema names."""
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _narrow_formats(schema: dict[str, Any]) -> None:
    """Bound numbers by their format. The library reads the formats of strings alone, and refuses those that it does not know."""
    name, kinds = schema.get("format"), _kinds(schema)
    if not isinstance(name, str) or "string" in kinds:
        return
    if name in NUMBERS:
        low, high = NUMBERS[name]
        del schema["format"]
        for key, bound, narrower in (("minimum", low, max), ("maximum", high, min)):
            known = schema.get(key)
            schema[key] = narrower(known, bound) if _is_number(known) else bound
        if name not in FRACTIONS:
            _make_whole(schema)
    elif name not in SHORTEST and {"integer", "number"} & set(kinds):
        hint = nearest(name, NUMBERS, 'remove it, or use "minimum" and "maximum"')
        raise UsageError(f'--json-schema: "format": "{name}" is not known', hint)


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)  # True is an int, too


def _make_whole(schema: dict[str, Any]) -> None:
    """Allow no number but a whole one."""
    kinds = _kinds(schema) or [kind for kind in TYPES if kind != "number"]
    schema["type"] = list(dict.fromkeys("integer" if kind == "number" else kind for kind in kinds))


def _narrow_strings(schema: dict[str, Any]) -> None:
    """Write patterns so that they mean the same to every validator, and bound formats that a validator checks more closely."""
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = _portable("pattern", schema["pattern"]).text
    kind = schema.get("format")
    if isinstance(kind, str) and kind in FORMATS:
        del schema["format"]
        if "pattern" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"pattern": FORMATS[kind]}]
        else:
            schema["pattern"] = FORMATS[kind]


def _narrow_numbers(schema: dict[str, Any]) -> None:
    for key, sign in (("minimum", 1), ("maximum", -1), ("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        value = schema.get(key)
        if key in ("minimum", "maximum") and _is_number(value) and sign * value < -EXACT:
            schema[key] = -sign * EXACT
        else:
            _check_numbers(key, value)
    _move_exclusive(schema, "minimum", "exclusiveMinimum", 1)
    _move_exclusive(schema, "maximum", "exclusiveMaximum", -1)
    step = schema.get("multipleOf")
    if not _is_number(step):
        return
    exact = Decimal(repr(step))
    if not 0 < exact < EXACT:
        raise _refusal("multipleOf", f'"multipleOf": {step}')
    # A validator divides floats, and 0.3 / 0.1 is not 3. So only whole numbers are allowed, and only where their division comes out whole.
    whole = exact.as_integer_ratio()[0]
    if isinstance(step, float) and any(int(n / step) != n / step for n in range(whole, whole * MULTIPLES, whole)):
        raise _refusal("multipleOf", f'"multipleOf": {step}')
    schema["multipleOf"] = whole
    _make_whole(schema)


def _move_exclusive(schema: dict[str, Any], bound: str, exclusive: str, sign: int) -> None:
    """Move an excluded whole bound a little inwards: of 0 < n < 0.5, whose bounds are less than 1 apart, the library allows 0."""
    value = schema.get(exclusive)
    value = schema.get(bound) if value is True else value  # draft 4 says so
    if not _is_number(value) or value != int(value) or schema.get("type") == "integer":
        return
    others = [schema.get(key) for key in (("maximum", "exclusiveMaximum") if sign > 0 else ("minimum", "exclusiveMinimum"))]
    gaps = [abs(other - value) / 2 for other in others if _is_number(other)]
    inner = value + sign * min(INWARDS * max(1, abs(value)), 0.5, *gaps)
    if inner != value:
        del schema[exclusive]
        known = schema.get(bound)
        schema[bound] = max(known, inner, key=lambda number: sign * number) if isinstance(known, int | float) else inner


def _narrow_objects(schema: dict[str, Any]) -> None:
    patterns = schema.get("patternProperties", {})
    found = {pattern: _portable("patternProperties", pattern) for pattern in patterns}
    for pattern in patterns:
        # If readers differ on whether a name matches, it is an additional property to some of them.
        if found[pattern].differs and schema.get("additionalProperties") is not False:
            raise _refusal("patternProperties", f'"patternProperties" {pattern!r} beside open "additionalProperties"')
    if patterns:
        schema["patternProperties"] = {found[pattern].text: inner for pattern, inner in patterns.items()}
    least, required = schema.get("minProperties"), schema.get("required")
    named = len(set(required)) if isinstance(required, list) and all(isinstance(name, str) for name in required) else 0
    if isinstance(least, int) and least - named > 1:
        # The library counts a name twice if the text holds it twice.
        raise _refusal("minProperties", f'"minProperties": {least} with {named} required names')


def _dependencies(schema: dict[str, Any]) -> list[Any]:
    """Schemas that replace the keywords of dependency, which the library does not know: a name is absent, or its dependency holds."""
    parts = []
    for key in ("dependencies", "dependentRequired", "dependentSchemas"):
        for name, needed in schema.pop(key, {}).items():
            parts.append({"anyOf": [{"properties": {name: False}}, {"required": needed} if isinstance(needed, list) else needed]})
    return parts


def _opposite(schema: Any) -> Any | None:
    """A schema that allows what this one forbids, without `not`, which the library does not know; None if there is none."""
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, dict):
        return None
    said = {key: value for key, value in schema.items() if key in KEYWORDS}
    if not said:
        return False
    [key, *others] = said
    value = said[key]
    if others or not isinstance(value, list):
        return None
    if key == "required":
        return {"type": "object", "anyOf": [{"properties": {name: False}} for name in value]}
    if key in ("anyOf", "allOf"):
        parts = [_opposite(inner) for inner in value]
        return None if None in parts else {"allOf" if key == "anyOf" else "anyOf": parts}
    return None


def _portable(key: str, pattern: str) -> Pattern:
    try:
        return read_pattern(pattern)
    except UnportableError as error:
        raise UsageError(f'--json-schema: "{key}" {pattern!r} cannot be honoured: {error}', f'change or remove "{key}"') from error


def _check_numbers(key: str, value: Any) -> None:
    """Raise UsageError for numbers that the library would round."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_numbers(key, inner)
    elif isinstance(value, int | float) and abs(value) > EXACT:
        raise _refusal(key, f'"{key}" with a number beyond 2^53')


def _refusal(key: str, what: str) -> UsageError:
    return UsageError(f"--json-schema: {what} cannot be honoured", f'change or remove "{key}"')
