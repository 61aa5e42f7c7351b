"""Tables and headings of the schedules that `refimpl.collectives.explain` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap

from refimpl.collectives.order import Order, formula
from refimpl.support import text

MOST = 100  # columns of a line


def table(head: str, rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """Return right-aligned columns under ``names``, after a column of labels under ``head``.

    Where they are too wide for a line of `MOST`, those that have no room stand below.
    """
    left = 0 if all(label.isdigit() for label, _ in rows) else 1
    label = max(map(len, [head, *(label for label, _ in rows)]))
    cell = max(map(len, [*names, *(each for _, cells in rows for each in cells)]))
    room = max(1, (MOST - label) // (cell + 2))
    parts = []
    for first in range(0, len(names), room):
        some = slice(first, first + room)
        lines = [[label, *cells[some]] for label, cells in rows]
        parts.append(text.table([head, *names[some]], lines, left, even=True))
    return "\n\n".join(parts)


def ranks(p: int) -> list[str]:
    return [f"r={rank}" for rank in range(p)]


def held(have: set[int], p: int) -> str:
    """Return which of p chunks are there, a point for each that is not.

    >>> held({0, 2}, 3)
    '0 . 2'
    """
    width = len(str(p - 1))
    return " ".join((str(c) if c in have else ".").rjust(width) for c in range(p))


def run(chunks: Sequence[int]) -> str:
    """Return chunks as text, runs of more than two shortened.

    >>> run([0]), run([3, 0]), run([4, 5, 6, 7, 0, 1])
    ('0', '3,0', '4-7,0,1')
    """
    parts: list[list[int]] = []
    for chunk in chunks:
        if parts and parts[-1][-1] + 1 == chunk:
            parts[-1].append(chunk)
        else:
            parts.append([chunk])
    short = (f"{p[0]}-{p[-1]}" if len(p) > 2 else ",".join(map(str, p)) for p in parts)
    return ",".join(short)


def orders(order: Callable[[int], Order], p: int) -> str:
    rows = [wrapped(f"  chunk {chunk}: {formula(order(chunk))}") for chunk in range(p)]
    return "order of summation\n" + "\n".join(rows)


def wrapped(line: str) -> str:
    """Return a long line as several."""
    return "\n".join(wrap(line, MOST, subsequent_indent=" " * 6))


def section(title: str, *parts: str) -> str:
    return "\n\n".join([title + "\n" + "=" * len(title), *parts])
