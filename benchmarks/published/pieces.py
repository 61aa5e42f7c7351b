"""Pieces of text that all presets have: what goes in, how to read it, where it is from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.published.quantities import KINDS, Quantity
from refimpl.support.text import WIDTH


def quantity(q: Quantity) -> str:
    """Return a value and its unit, with a prefix where there is one for it.

    >>> quantity(Quantity(37e9, "B/s", "", "", "")), quantity(Quantity(14e-6, "s", "", "", ""))
    ('37 GB/s', '14 us')
    """
    value, unit = q.value, q.unit
    if unit == "s":
        return f"{value * 1e6:g} us"
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= scale:
            return f"{value / scale:g} {prefix}{'B' if unit == 'bytes' else unit}"
    return f"{value:g} {unit}".strip()


def inputs(quantities: Sequence[Quantity], left_out: str) -> list[str]:
    """Return every number under the heading of how it is known."""
    parts = []
    for kind, heading in KINDS.items():
        rows = [[q.what, quantity(q), q.source] for q in quantities if q.kind == kind]
        if rows:
            widths = [max(len(row[i]) for row in rows) for i in range(2)]
            lines = [
                hanging(f"  {what.ljust(widths[0])}  {value.rjust(widths[1])}    ", source)
                for what, value, source in rows
            ]
            if kind == "assumed":
                lines.append(hanging("  left out: ", left_out))
            parts.append("\n".join([heading.upper(), *lines]))
    return parts


def hanging(start: str, text: str) -> str:
    """Return text after ``start``, its further lines below its first."""
    lines = textwrap.wrap(text, WIDTH - len(start)) or [""]
    return ("\n" + " " * len(start)).join([start + lines[0], *lines[1:]]).rstrip()


def sources(known: Mapping[str, str], used: Iterable[str]) -> str:
    """Return the sources whose short names stand in what is used."""
    words = " ".join(used)
    named = {name: text for name, text in known.items() if name in words}
    width = max(map(len, named))
    return "\n".join(
        ["SOURCES", *(hanging(f"  {n.ljust(width)}    ", text) for n, text in named.items())]
    )


def reading(lines: Sequence[str]) -> str:
    """Return how to read the result."""
    filled = [
        textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        for text in lines
    ]
    return "\n".join(["HOW TO READ THIS", *filled])
