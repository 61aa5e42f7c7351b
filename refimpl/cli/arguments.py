"""Argument types that several commands share; each says what would have been right."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refimpl.support.errors import UserError

MOST = 10**15  # anything that is counted: no formula overflows
LARGEST = 1e30  # anything that is measured
RANKS = 50_000  # more than any machine has, and drawn in seconds
ROWS = 10**7  # of matrices, each of which is looked at


def between(least: int, most: int) -> Callable[[str], int]:
    """Return the type of whole numbers from ``least`` to ``most``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            words = f"of at least {least}" if value < least else f"of at most {most:,}"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number {words}")
        return value

    return number


positive, whole, ranks = between(1, MOST), between(0, MOST), between(1, RANKS)


def shapes(text: str) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of parameters that a text has, such as ``440x1024,1024``; or a number.

    >>> shapes("440x1024,1024"), shapes("7")
    (((440, 1024), (1024,)), ((7,),))
    """
    found = tuple(tuple(map(positive, one.split("x"))) for one in text.split(","))
    if sum(map(math.prod, found)) > MOST or sum(math.prod(one[:-1]) for one in found) > ROWS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} has more than {MOST:,} parameters, or more than {ROWS:,} rows"
        )
    return found


def number(what: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a type for the numbers that fit; ``what`` is what others are not."""

    def spelled(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what}")
        return value

    return spelled


positive_number = number(
    f"a positive number, at most {LARGEST:g} and at least its inverse",
    lambda x: 1 / LARGEST <= x <= LARGEST,
)


def clip(text: str) -> float:
    """Return the largest norm of a gradient, or 0 for no clipping."""
    return 0.0 if text in ("0", "0.0") else positive_number(text)


def period(text: str) -> tuple[int | None, float | None]:
    """Return (steps, None) of ``500``, (None, seconds) of ``90s``, ``15m`` or ``2h``."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        if text[-1:] in units:
            return None, positive_number(text[:-1]) * units[text[-1]]
        return positive(text), None
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is neither a number of steps nor a time such as 90s, 15m or 2h"
        ) from None


def span(text: str) -> tuple[int, int]:
    """Return (A, B) of a text ``A:B``, or (A, A) of ``A``: steps, from 1."""
    first, colon, last = text.partition(":")
    try:
        found = positive(first), positive(last if colon else first)
    except argparse.ArgumentTypeError:
        found = 1, 0
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form A:B, steps from 1")
    return found


def filename(text: str) -> str:
    """Return a file's or a folder's name; an empty one is a variable that was never set."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: name a file or a folder")
    return text


def links(text: str) -> Any:
    """Parse ``measure``, or a file of links: what `Links.plain` gave."""
    from refimpl.collectives.cost import Links
    from refimpl.support.files import read_json, read_text

    if text == "measure":
        return text
    try:
        plain = read_json(read_text(Path(filename(text))))
        return Links.of(plain if isinstance(plain, dict) else {}, text).plain()
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}") from error


def setting(text: str) -> tuple[str, str]:
    """Return (NAME, VALUE) of a text ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value
