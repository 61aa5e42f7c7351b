"""Argument types that several commands share; each says what would have been right."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST = 10**15  # anything that is counted: no formula overflows
LARGEST = 1e30  # anything that is measured
RANKS = 50_000  # more than any machine has, and drawn in seconds


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


def positive_number(text: str) -> float:
    """Return the positive finite number that a text spells."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 / LARGEST <= number <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a positive number, at most {LARGEST:g} and at least its inverse"
        )
    return number


def setting(text: str) -> tuple[str, str]:
    """Return (NAME, VALUE) of a text ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value
