"""``refimpl bench``: every family of collectives beside MPI's own, in turn, in one run.

Each operation and size is run by all families one after the other, again and again, so that
whatever else the machine does falls on all of them alike.  The time of a call is that of its
slowest rank; what is reported is the median over the repeats, and the median of the ratios to
``native`` in the same repeat.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import OPERATIONS, Auto, Collectives
from refimpl.collectives.auto import LONG, SHORT
from refimpl.collectives.families import EXPLICIT, NATIVE, TREE

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

KB, MB = 1 << 10, 1 << 20
SIZES = tuple(KB << i for i in range(0, 17, 2))  # 1 KB, 4 KB, ..., 64 MB


def seconds_of(comm: Communicator, family: Collectives, operation: str, x: NDArray) -> float:
    """Run one call and return the seconds of its slowest rank.  Collective; x is overwritten."""
    run = getattr(family, operation)
    comm.barrier()
    start = time.perf_counter()
    run(comm, x)
    return max(comm.allgather_object(time.perf_counter() - start))


def timed(operation: str, nodes: tuple[int, ...]) -> list[Collectives]:
    """Return the families to time: every algorithm once, MPI's own first.

    ``auto`` is left out, because it is one of the others; so are ring and halving-doubling where
    they are the tree, and who cannot run on these nodes.
    """
    able = [family for family in EXPLICIT if family.refuses(operation, nodes) is None]
    trees = TREE.algorithms.get(operation)
    return [NATIVE, *(f for f in able if f is TREE or f.algorithms[operation] is not trees)]


def measure(
    comm: Communicator,
    sizes: Sequence[int] = SIZES,
    operations: Sequence[str] = OPERATIONS,
    repeats: int = 31,
    seconds: float = 40.0,
    dtype: str = "float32",
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

    Returns
    -------
    list of dict, the same on all ranks
        operation, bytes, dtype, ranks, nodes, repeats, auto (the family that ``auto`` takes) and,
        by name of the family, seconds (median), best (least) and ratio (median of the ratios to
        native in the same repeat).
    """
    x = np.empty(max(sizes) // np.dtype(dtype).itemsize, dtype)
    allowed = seconds / (len(sizes) * len(operations))
    rows = []
    with comm.purpose("bench"):
        for operation in operations:
            for nbytes in sizes:
                part = x[: nbytes // x.itemsize]
                times = _times(comm, operation, part, repeats, allowed)
                rows.append(_row(comm, operation, part, times))
    return rows


def _times(
    comm: Communicator, operation: str, x: NDArray, repeats: int, allowed: float
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
            seconds = seconds_of(comm, family, operation, x)
            spent += seconds
            if repeat > 0:
                times[family.name].append(seconds)
    return times


def _row(comm: Communicator, operation: str, x: NDArray, times: dict[str, list[float]]) -> dict:
    native = times[NATIVE.name]
    return {
        "operation": operation,
        "bytes": x.nbytes,
        "dtype": str(x.dtype),
        "ranks": comm.size,
        "nodes": len(set(comm.nodes)),
        "repeats": len(native),
        "auto": Auto().choose(operation, x.size, comm.nodes, x.itemsize).name,
        "seconds": {name: median(seconds) for name, seconds in times.items()},
        "best": {name: min(seconds) for name, seconds in times.items()},
        "ratio": {
            name: median(mine / theirs for mine, theirs in zip(seconds, native, strict=True))
            for name, seconds in times.items()
        },
    }


def size_text(nbytes: int) -> str:
    """Return a number of bytes in words.

    >>> size_text(4096), size_text(64 * MB), size_text(100)
    ('4 KB', '64 MB', '100 B')
    """
    for unit, name in ((MB, "MB"), (KB, "KB")):
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def table(rows: Iterable[Mapping]) -> str:
    """Return the rows of `measure` as text: milliseconds of native, ratios of the others to it."""
    names = [family.name for family in EXPLICIT]
    lines: list[str] = []
    last = None
    for row in rows:
        if row["operation"] != last:
            last = row["operation"]
            where = f"{row['ranks']} ranks on {row['nodes']} node{'s' * (row['nodes'] > 1)}"
            lines += ["", f"{last}, {row['dtype']}, {where}: time / time of MPI's own"]
            head = "".join(f"  {name:>16}" for name in names)
            lines.append(f"{'vector':>8}  {'native':>11}{head}  auto takes")
        cells = [f"{row['ratio'][n]:.2f}" if n in row["ratio"] else "-" for n in names]
        native = f"{1e3 * row['seconds'][NATIVE.name]:.3f} ms"
        ratios = "".join(f"  {cell:>16}" for cell in cells)
        lines.append(f"{size_text(row['bytes']):>8}  {native:>11}{ratios}  {row['auto']}")
    return "\n".join(lines[1:])


def crossovers(rows: Iterable[Mapping]) -> dict[str, dict[int, int]]:
    """Return the `CROSSOVER` table of `refimpl.collectives.auto` that follows from measured rows.

    For each operation and number of ranks, the size up to which halving-doubling is the better
    choice: the one that makes the sum over all sizes of the logarithm of the chosen family's
    best time least, so that one odd measurement does not decide.  0 if the ring always is.

    >>> def row(nbytes, ring, halving):
    ...     return {"operation": "allreduce", "ranks": 4, "bytes": nbytes,
    ...             "best": {"ring": ring, "halving-doubling": halving}}
    >>> crossovers([row(1024, 2.0, 1.0), row(4096, 2.0, 1.5), row(16384, 3.0, 4.0)])
    {'allreduce': {4: 4096}}
    """
    gains: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for row in rows:
        seconds = row["best"]
        if LONG.name in seconds and SHORT.name in seconds:
            gain = float(np.log(seconds[LONG.name] / seconds[SHORT.name]))
            entry = gains.setdefault(row["operation"], {}).setdefault(row["ranks"], [])
            entry.append((row["bytes"], gain))
    return {
        operation: {ranks: _best_cut(points) for ranks, points in sorted(table.items())}
        for operation, table in gains.items()
    }


def _best_cut(points: list[tuple[int, float]]) -> int:
    """Return the size up to which the gains add up to most; 0 if no sum is positive."""
    best, most, total = 0, 0.0, 0.0
    for nbytes, gain in sorted(points):
        total += gain
        if total > most:
            best, most = nbytes, total
    return best
