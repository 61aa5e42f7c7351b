"""The order in which a sum over ranks is added, as data.

Floating-point addition is not associative, so each algorithm states its order of summation, and
golden values depend on it to the last bit.  An order is a nested pair: a rank's number stands
for that rank's addend, ``(a, b)`` for a + b.  (a + b and b + a have the same bits, so the order
inside a pair does not matter.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Order: TypeAlias = "int | tuple[Order, Order]"
# The order of a whole vector: parts that tile it, each added in an order of its own.
Orders: TypeAlias = list[tuple[slice, Order]]


def left_to_right(terms: Sequence[Order]) -> Order:
    """Return the order that adds the terms one by one.

    >>> left_to_right([1, 2, 3, 0])
    (((1, 2), 3), 0)
    """
    total = terms[0]
    for term in terms[1:]:
        total = (total, term)
    return total


def around(p: int, last: int) -> list[int]:
    """Return the ranks of a ring from the one after ``last`` round to ``last`` itself.

    >>> around(4, 0)
    [1, 2, 3, 0]
    """
    return [(last + 1 + i) % p for i in range(p)]


def formula(order: Order) -> str:
    """Return the order as text; sums to be made first stand in brackets.

    >>> formula(((1, 2), (3, 0))), formula((((1, 2), 3), 0))
    ('(1 + 2) + (3 + 0)', '1 + 2 + 3 + 0')
    """
    if isinstance(order, int):
        return str(order)
    left, right = order
    if _is_chain(left) and isinstance(right, int):
        return f"{formula(left)} + {right}"
    return f"{_bracketed(left)} + {_bracketed(right)}"


def _is_chain(order: Order) -> bool:
    """Tell whether the order only adds single ranks, left to right: it needs no brackets."""
    while isinstance(order, tuple):
        order, right = order
        if isinstance(right, tuple):
            return False
    return True


def _bracketed(order: Order) -> str:
    return str(order) if isinstance(order, int) else f"({formula(order)})"
