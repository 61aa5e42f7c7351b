"""``refimpl bench``: every family of collectives beside MPI's own, in turn, in one run.

Each operation and size is run by all families one after the other, again and again, so that
whatever else the machine does falls on all of them alike.  The time of a call is that of its
slowest rank; what is reported is the median over the repeats, and the median of the ratios to
``native`` in the same repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from refimpl.collectives import OPERATIONS, Auto, Collectives
from refimpl.collectives.auto import ASSUMED
from refimpl.collectives.cost import Links
from refimpl.collectives.families import EXPLICIT, NATIVE, able
from refimpl.run.bench.timing import slowest
from refimpl.support import text
from refimpl.support.text import binary, plural

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

NEAR = 1.15  # times the best: no loss that is worth a rule
SIZES = tuple(1 << i for i in range(10, 27, 2))  # 1 KiB, 4 KiB, ..., 64 MiB


def timed(operation: str, nodes: tuple[int, ...]) -> list[Collectives]:
    """Return the families to time: every algorithm once, MPI's own first.

    ``auto`` is left out, because it is one of the others.
    """
    return [NATIVE, *able(operation, nodes)]


def measure(
    comm: Communicator,
    sizes: Sequence[int] = SIZES,
    operations: Sequence[str] = OPERATIONS,
    repeats: int = 31,
    seconds: float = 40.0,
    dtype: str = "float32",
    links: Links = ASSUMED,
) -> list[dict]:
    """Time all families on all operations and sizes.  Collective.

    Parameters
    ----------
    comm : Communicator
        Who takes part.  Its ledger counts the messages under the purpose "bench".
    sizes : sequence of int
        Bytes of the whole vector.
    repeats : int
        Most timed runs of each, after one that is not timed.
    seconds : float
        About how long it may take in all: a row ends when its part of the time is over, with
        three runs of each at least.
    links : Links
        What ``auto`` chooses by.

    Returns
    -------
    list of dict, the same on all ranks
        operation, bytes, dtype, ranks, nodes, repeats, auto (the family that ``auto`` takes) and,
        by name of the family, seconds (median), best (least) and ratio (median of the ratios to
        native in the same repeat).
    """
    x = np.empty(max(sizes) // np.dtype(dtype).itemsize, dtype)
    allowed = seconds / (len(sizes) * len(operations))
    auto, rows = Auto(links), []
    with comm.purpose("bench"):
        for operation in operations:
            for nbytes in sizes:
                part = x[: nbytes // x.itemsize]
                times = _times(comm, operation, part, repeats, allowed)
                rows.append(_row(comm, operation, part, times, auto))
    return rows


def _times(
    comm: Communicator, operation: str, x: np.ndarray, repeats: int, allowed: float
) -> dict[str, list[float]]:
    families = timed(operation, comm.nodes)
    times: dict[str, list[float]] = {family.name: [] for family in families}
    spent = 0.0  # equal on all ranks, so that they stop together
    for repeat in range(repeats + 1):
        if repeat > 3 and spent > allowed:
            break
        # Whoever comes first finds the cache as the others left it: take turns.
        turn = repeat % len(families)
        for family in families[turn:] + families[:turn]:
            x[:] = 1
            seconds = slowest(comm, partial(getattr(family, operation), comm, x))
            spent += seconds
            if repeat > 0:
                times[family.name].append(seconds)
    return times


def _row(
    comm: Communicator, operation: str, x: np.ndarray, times: dict[str, list[float]], auto: Auto
) -> dict:
    native = times[NATIVE.name]
    return {
        "operation": operation,
        "bytes": x.nbytes,
        "dtype": str(x.dtype),
        "ranks": comm.size,
        "nodes": len(set(comm.nodes)),
        "repeats": len(native),
        "auto": auto.choose(operation, x.size, comm.nodes, x.itemsize).name,
        "seconds": {name: median(seconds) for name, seconds in times.items()},
        "best": {name: min(seconds) for name, seconds in times.items()},
        "ratio": {
            name: median(mine / theirs for mine, theirs in zip(seconds, native, strict=True))
            for name, seconds in times.items()
        },
    }


def table(rows: Iterable[Mapping]) -> str:
    """Return the rows of `measure` as text: milliseconds of native, ratios of the others to it.

    Last stand the family that ``auto`` takes, and its time to that of the best of the explicit;
    and a line says in how many rows that is `NEAR` or less, by medians, and by the least times,
    which other work on the machine changes less.
    """
    rows, parts = list(rows), []
    for title, group in ((title, list(group)) for title, group in groupby(rows, key=_title)):
        timed = set().union(*(row["ratio"] for row in group))
        names = [family.name for family in EXPLICIT if family.name in timed]
        lines = [
            [
                binary(row["bytes"]),
                f"{1e3 * row['seconds'][NATIVE.name]:.3f} ms",
                *(f"{row['ratio'][n]:.2f}" if n in row["ratio"] else "-" for n in names),
                row["auto"],
                f"{_lost(row):.2f}",
            ]
            for row in group
        ]
        head = ["vector", NATIVE.name, *names, "auto takes", "to the best"]
        parts.append(title + "\n" + text.table(head, lines, left=0))
    near = [sum(_lost(row, by) <= NEAR for row in rows) for by in ("ratio", "best")]
    parts.append(
        f"auto is the best, or within {NEAR} times of it, in {near[0]} of {len(rows)} rows by "
        f"medians, in {near[1]} by the least times"
    )
    return "\n\n".join(parts)


def _lost(row: Mapping, by: str = "ratio") -> float:
    """Return the time of what auto takes to that of the best explicit family."""
    times = {name: time for name, time in row[by].items() if name != NATIVE.name}
    return float(times[row["auto"]] / min(times.values()))


def _title(row: Mapping) -> str:
    where = f"{plural(row['ranks'], 'rank')} on {plural(row['nodes'], 'node')}"
    return f"{row['operation']}, {row['dtype']}, {where}: time / time of MPI's own"
