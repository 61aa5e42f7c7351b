"""Up to which length halving-doubling is the better choice than the ring, on this machine.

    mpiexec -n 4 python -m mpi4py benchmarks/crossovers.py

Times both and prints the `CROSSOVER` table of `refimpl.collectives.auto` that follows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's refimpl

from refimpl.collectives.auto import LONG, SHORT


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


def main() -> None:
    from mpi4py import MPI

    from refimpl.run.bench.collectives import measure
    from refimpl.world.communicator import Communicator

    comm = Communicator(MPI.COMM_WORLD)
    rows = measure(comm, operations=("allgather", "reduce_scatter", "allreduce"))
    if comm.rank == 0:
        print(crossovers(rows))


if __name__ == "__main__":
    main()
