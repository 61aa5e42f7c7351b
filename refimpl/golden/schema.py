"""The manifest's JSON Schema, and a check against the part of JSON Schema that it uses.

``schema.json`` is the description that others can use with their own tools.  So that refimpl
needs no such tool, the check of its keywords is here: type, const, enum, pattern, minimum,
required, properties, additionalProperties, items, minItems, $ref to a definition, if and then.
"""

from __future__ import annotations

import json
import re
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
}
KNOWN = {
    *("type", "const", "enum", "pattern", "minimum", "required", "properties", "if", "then"),
    *("additionalProperties", "items", "minItems", "$ref", "$defs"),
    *("$schema", "$id", "title", "description"),
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
    return _mistakes(document, whole, whole, "")


def _mistakes(value: Any, rule: dict[str, Any], whole: dict[str, Any], at: str) -> Iterator[str]:
    assert set(rule) <= KNOWN, set(rule) - KNOWN
    where = at or "the top"
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        yield from _mistakes(value, whole["$defs"][name], whole, at)
    kind = rule.get("type")
    if kind is not None and not _is(value, kind):
        yield f"at {where}: {value!r:.60} is no {kind}"
        return
    if "const" in rule and value != rule["const"]:
        yield f"at {where}: {value!r:.60} must be {rule['const']!r}"
    if "enum" in rule and value not in rule["enum"]:
        yield f"at {where}: {value!r:.60} must be one of {rule['enum']}"
    if "pattern" in rule and isinstance(value, str) and not re.search(rule["pattern"], value):
        yield f"at {where}: {value!r:.60} must match {rule['pattern']}"
    if "minimum" in rule and _is(value, "number") and value < rule["minimum"]:
        yield f"at {where}: {value} must be at least {rule['minimum']}"
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


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
