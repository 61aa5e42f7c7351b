"""The operations of the ladder as data: what each is given, what must come out, the equation.

file              operations
declared.py       (what an operation is)
collectives.py    allgather ... alltoall
compression.py    GTC, one bit per value, top-k
blocks.py         block filters
layers.py         layers and the loss
optimizers.py     optimizers, clipping, rates, fixed point
acoustic.py       features, alignment, decoding, scoring
training.py       one step and ten

``operations.json`` beside ``schema.json`` is `exported`; every case is held against it when it is
made and when it is read, and the table in docs/golden.md is `table`.

    refimpl golden describe gtc_adapt
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from refimpl.golden.operations import (
    acoustic,
    blocks,
    collectives,
    compression,
    layers,
    optimizers,
    training,
)
from refimpl.golden.operations.declared import Operation, Values
from refimpl.support.errors import UserError, listed

FILE = Path(__file__).parents[1] / "operations.json"

DECLARED: dict[str, Operation] = {
    one.name: one
    for module in (collectives, compression, blocks, layers, optimizers, acoustic, training)
    for one in module.OPERATIONS
}


def mistakes(case: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a case, as its manifest has it, is not as its operation is declared.

    Of an operation that is declared nowhere nothing can be said.
    """
    operation = DECLARED.get(case["operation"])
    if operation is not None:
        yield from operation.mistakes(case)


def exported() -> str:
    """Return the text of ``operations.json``, with a line for each array and setting."""
    entries = []
    for one in DECLARED.values():
        told = one.described()
        parts = [f'"text": {json.dumps(told["text"])}']
        parts.append(f'"equation": {_lines(map(json.dumps, told["equation"]), "[]")}')
        for key in ("inputs", "outputs", "details"):
            if key in told:
                parts.append(f'"{key}": {_lines(_members(told[key]), "{}")}')
        settings = told["settings"]
        head = json.dumps({k: v for k, v in settings.items() if k != "properties"})
        properties = _lines(_members(settings["properties"]), "{}")
        parts.append(f'"settings": {head[:-1]}, "properties": {properties}}}')
        inside = ",\n".join(f"   {part}" for part in parts)
        entries.append(f'  "{one.name}": {{\n{inside}\n  }}')
    head = (
        '{\n "title": "Operations of the refimpl golden bundles",\n "description": "What '
        "docs/golden.md says of arrays and rules holds for all. settings is a JSON Schema of a "
        'case\'s settings; an array with a when is in some cases only.",\n "operations": {\n'
    )
    return head + ",\n".join(entries) + "\n }\n}\n"


def _members(told: Mapping[str, Any]) -> Iterator[str]:
    return (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in told.items())


def _lines(members: Iterator[str], brackets: str) -> str:
    inside = ",\n".join(f"    {one}" for one in members)
    return f"{brackets[0]}\n{inside}\n   {brackets[1]}" if inside else brackets


def describe(name: str) -> str:
    """Return all that is known of an operation, for people.

    Raises `UserError` for a name that is none.
    """
    if name not in DECLARED:
        raise UserError(f"no operation {name!r}: choose one of {listed(tuple(DECLARED))}")
    one = DECLARED[name]
    parts = [f"{one.name}: {one.text}", "", *(f"    {line}".rstrip() for line in one.lines())]
    for title, role in (("given", "input"), ("comes out", "output"), ("details", "detail")):
        if one.of(role):
            parts += ["", f"{title}:", *(_told(values) for values in one.of(role))]
    if one.settings:
        parts += ["", "settings:"]
    for setting in one.settings:
        told = setting.described()
        kind = told.get("enum") or told.get("type", "")
        kind = " or ".join(map(str, kind)) if isinstance(kind, list) else kind
        more = f" (if missing: {json.dumps(told['default'])})" if "default" in told else ""
        parts.append(_entry(f"{setting.name}: {kind}", setting.meaning + more))
        for key, inner in told.get("properties", {}).items():
            parts.append(_entry(f"    {key}: {inner['description']}", ""))
    return "\n".join(parts)


def _told(values: Values) -> str:
    more = f"; if there is one: {values.when}" if values.when else ""
    return _entry(f"{values.name} {_shape(values)} {values.dtype}", values.meaning + more)


def _entry(head: str, text: str) -> str:
    lines = textwrap.wrap(text, 80)
    return "\n".join([f"    {head}", *(f"        {line}" for line in lines)])


def table() -> str:
    """Return the operations as the table of the chapter; details stand after a semicolon."""
    rows = [
        "| operation | in | out; details | what is true afterwards |",
        "| --- | --- | --- | --- |",
    ]
    for one in DECLARED.values():
        came = ", ".join(values.name for values in one.of("output"))
        if one.of("detail"):
            came += f"; {', '.join(values.name for values in one.of('detail'))}"
        given = ", ".join(f"{values.name} {_shape(values)}" for values in one.of("input"))
        rows.append(f"| `{one.name}` | {given} | {came} | {one.text} |")
    return "\n".join(rows) + "\n"


def _shape(values: Values) -> str:
    return f"({', '.join(values.axes.split())})"
