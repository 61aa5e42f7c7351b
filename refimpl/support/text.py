"""Tables, bytes and counted things as text: one way to write each of them."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 96  # characters of a paragraph


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    *,
    indent: int = 0,
    even: bool = False,
) -> str:
    """Return columns, the first ``left`` of them flush left, the others flush right.

    A column is as wide as its widest cell; with ``even`` all but the first are equally wide.
    ``head`` may be empty.

    >>> print(table(["n", "x"], [["a", "1.5"], ["bcd", "10"]]))
    n      x
    a    1.5
    bcd   10
    """
    lines = [*filter(None, [head]), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if even:
        widths[1:] = [max(widths[1:])] * (len(widths) - 1)
    return "\n".join(
        " " * indent
        + "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def amount(value: float, unit: str) -> str:
    """Return a number of at least 0 in three digits, with a prefix to its unit.

    >>> amount(1e14, "FLOPS"), amount(2.5e9, "B/s"), amount(999_999, "B")
    ('100 TFLOPS', '2.5 GB/s', '1 MB')
    """
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g} T{unit}"


def size(nbytes: float) -> str:
    """Return a number of bytes for a person; a kB is 1000 of them.

    >>> size(0), size(1536), size(10_700_000)
    ('0 B', '1.54 kB', '10.7 MB')
    """
    return amount(nbytes, "B")


def duration(seconds: float) -> str:
    """Return how long something took, for a person: the one way in which that is told.

    >>> duration(61.74), duration(754), duration(7300)
    ('61.7 s', '12 min 34 s', '2 h 2 min')
    """
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 5999.5:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def binary(nbytes: int) -> str:
    """Return the exact number of bytes of a vector that is measured; a KiB is 1024 of them.

    >>> binary(4096), binary(64 << 20), binary(1000)
    ('4 KiB', '64 MiB', '1000 B')
    """
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def plural(n: int, word: str) -> str:
    """Return how many there are of something.

    >>> plural(1, "rank"), plural(4, "rank")
    ('1 rank', '4 ranks')
    """
    return f"{n} {word}{'s' * (n != 1)}"
