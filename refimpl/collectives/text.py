"""Tables and headings of the schedules that `refimpl.collectives.explain` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refimpl.collectives.order import Order, formula
from refimpl.support import text


def table(head: str, rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """Return right-aligned columns under ``names``, after a column of labels under ``head``."""
    left = 0 if all(label.isdigit() for label, _ in rows) else 1
    lines = [[label, *cells] for label, cells in rows]
    return text.table([head, *names], lines, left, even=True)


def ranks(p: int) -> list[str]:
    return [f"r={rank}" for rank in range(p)]


def held(have: set[int], p: int) -> str:
    """Return which of p chunks are there, a point for each that is not.

    >>> held({0, 2}, 3)
    '0 . 2'
    """
    width = len(str(p - 1))
    return " ".join((str(c) if c in have else ".").rjust(width) for c in range(p))


def orders(order: Callable[[int], Order], p: int) -> str:
    rows = [f"  chunk {chunk}: {formula(order(chunk))}" for chunk in range(p)]
    return "order of summation\n" + "\n".join(rows)


def section(title: str, *parts: str) -> str:
    return "\n\n".join([title + "\n" + "=" * len(title), *parts])


def plural(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
