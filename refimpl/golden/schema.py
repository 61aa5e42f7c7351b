"""The manifest's JSON Schema, and a check against the part of JSON Schema that it uses.

``schema.json`` is the description that others can use with their own tools.  So that refimpl
needs no such tool, the check of its keywords is here: type, const, enum, pattern, minimum,
maximum, required, properties, additionalProperties, items, minItems, $ref to a definition, if and
then.  What no schema can say, that names are unique for example, is checked after it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("schema.json")

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
}
KNOWN = {
    *("type", "const", "enum", "pattern", "minimum", "maximum", "required", "properties"),
    *("additionalProperties", "items", "minItems", "$ref", "$defs", "if", "then"),
    *("$schema", "$id", "title", "description", "default"),
}


def schema() -> dict[str, Any]:
    """Return the schema as plain data."""
    return json.loads(SCHEMA.read_text("utf-8"))


def mistakes(document: Any) -> Iterator[str]:
    """Yield what is wrong with a manifest: where, and what is needed.

    >>> next(mistakes({"format": 1}))
    'at the top: bundle is missing'
    """
    whole = schema()
    found = list(_mistakes(document, whole, whole, ""))
    yield from found or _contradictions(document, whole)


def broken(value: Any, rule: dict[str, Any], at: str) -> Iterator[str]:
    """Yield in what a value is not what a schema of these keywords says.

    >>> list(broken({"tau": "8"}, {"properties": {"tau": {"type": "number"}}}, "settings"))
    ["at settings.tau: '8' is no number"]
    """
    yield from _mistakes(value, rule, rule, at)


def _contradictions(told: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """Yield what a manifest that follows the schema cannot mean."""
    number = whole["properties"]["rung_name"]["enum"].index(told["rung_name"]) + 1
    if told["rung"] != number:
        yield f"at rung: {told['rung']} is not the number of {told['rung_name']!r}, {number}"
    places = [("cases", told["cases"])]
    places += [(f"cases[{i}].arrays", case["arrays"]) for i, case in enumerate(told["cases"])]
    for place, entries in places:
        names = Counter(entry["name"] for entry in entries)
        for name in [name for name, count in names.items() if count > 1]:
            yield f"at {place}: the name {name!r} is there twice"
    try:
        json.dumps(told, allow_nan=False)
    except ValueError:
        yield "at cases: settings hold a number that is not finite"


def _mistakes(value: Any, rule: dict[str, Any], whole: dict[str, Any], at: str) -> Iterator[str]:
    assert set(rule) <= KNOWN, set(rule) - KNOWN
    where = at or "the top"
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        yield from _mistakes(value, whole["$defs"][name], whole, at)
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, one) for one in kinds):
        yield f"at {where}: {value!r:.60} is no {' or '.join(kinds)}"
        return
    if "const" in rule and not _same(value, rule["const"]):
        yield f"at {where}: {value!r:.60} must be {rule['const']!r}"
    if "enum" in rule and not any(_same(value, one) for one in rule["enum"]):
        yield f"at {where}: {value!r:.60} must be one of {rule['enum']}"
    if "pattern" in rule and isinstance(value, str) and not re.search(rule["pattern"], value):
        yield f"at {where}: {value!r:.60} must match {rule['pattern']}"
    if "minimum" in rule and _is(value, "number") and value < rule["minimum"]:
        yield f"at {where}: {value} must be at least {rule['minimum']}"
    if "maximum" in rule and _is(value, "number") and value > rule["maximum"]:
        yield f"at {where}: {value!r:.60} must be at most {rule['maximum']}"
    if isinstance(value, dict):
        yield from _object(value, rule, whole, at)
    if isinstance(value, list):
        if len(value) < rule.get("minItems", 0):
            yield f"at {where}: at least {rule['minItems']} items are needed"
        for number, item in enumerate(value):
            yield from _mistakes(item, rule.get("items", {}), whole, f"{at}[{number}]")
    if "if" in rule and not any(_mistakes(value, rule["if"], whole, at)):
        yield from _mistakes(value, rule["then"], whole, at)


def _object(
    value: dict[str, Any], rule: dict[str, Any], whole: dict[str, Any], at: str
) -> Iterator[str]:
    properties = rule.get("properties", {})
    for name in rule.get("required", ()):
        if name not in value:
            yield f"at {at or 'the top'}: {name} is missing"
    for name, item in value.items():
        inside = f"{at}.{name}" if at else name
        if name in properties:
            yield from _mistakes(item, properties[name], whole, inside)
        elif rule.get("additionalProperties") is False:
            yield f"at {at or 'the top'}: {name} is not known"


def _same(value: Any, known: Any) -> bool:
    """Tell whether two values are one in JSON, too, where true and 1.0 are not 1."""
    return type(value) is type(known) and value == known


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
