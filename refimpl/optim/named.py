"""Things made by name: a table's functions, whose defaults are their hyper-parameters.

A table maps each name to a function (or class); its arguments with a default are what a recipe
may set, those without are given by the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from refimpl.support.errors import UserError, listed

T = TypeVar("T")


def defaults(what: str, table: Mapping[str, Callable[..., T]], name: str) -> dict[str, Any]:
    """Return the hyper-parameters of this name, with their defaults.

    >>> defaults("colour", {"grey": lambda base, level=0.5: (base, level)}, "grey")
    {'level': 0.5}

    Raises `UserError` if it is not in the table of `what`.
    """
    if name not in table:
        raise UserError(f"no {what} {name!r}: choose one of {listed(table)}")
    parameters = inspect.signature(table[name]).parameters.items()
    return {key: p.default for key, p in parameters if p.default is not p.empty}


def made(
    what: str, table: Mapping[str, Callable[..., T]], name: str, /, *always: Any, **given: float
) -> T:
    """Return ``table[name](*always, **given)``.

    Raises `UserError` if the name is not in the table of `what`, or has no hyper-parameter of a
    given name.
    """
    known = defaults(what, table, name)
    for key in given:
        if key not in known:
            raise UserError(f"{what} {name} has no {key!r}: it has {listed(known)}")
    return table[name](*always, **given)
