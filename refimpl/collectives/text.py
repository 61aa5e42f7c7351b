"""Tables and headings of the schedules that `refimpl.collectives.explain` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refimpl.collectives.order import Order, formula


def table(head: str, rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """Return right-aligned columns under ``names``, after a column of labels under ``head``."""
    width = max(len(cell) for cells in [names, *(cells for _, cells in rows)] for cell in cells)
    left = max(len(label) for label in [head, *(label for label, _ in rows)])
    numbered = all(label.isdigit() for label, _ in rows)
    lines = []
    for label, cells in [(head, names), *rows]:
        start = label.rjust(left) if numbered else label.ljust(left)
        lines.append((start + "".join("  " + cell.rjust(width) for cell in cells)).rstrip())
    return "\n".join(lines)


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
