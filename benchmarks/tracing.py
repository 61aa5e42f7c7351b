"""What does tracing cost?  Steps with and without it in turn, on the ranks of a real MPI.

    ./run_mpi.sh setup                                              # prints the Python
    mpiexec -n 2 python -m mpi4py benchmarks/tracing.py             # ddp
    mpiexec -n 2 python -m mpi4py benchmarks/tracing.py --zero3     # more messages a step

The network is 440-1024-1024-1024-128 on 64 rows of float32.  A step's time is that of its slowest
rank, and the ratio the median over rounds of (traced / untraced) within a round.  Beside it, what
an event takes of the processor, by which tracing is judged where other jobs disturb the clock.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads its BLAS
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's refimpl

import numpy as np
from mpi4py import MPI

from refimpl import collectives, optim
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.run.bench.network import BATCH, WIDTHS, network
from refimpl.run.bench.timing import slowest
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid
from refimpl.world.trace import Recorder

ROUNDS, EVENTS = 41, 20_000


def event_seconds(comm: Communicator) -> float:
    """Return the processor's time for one event, the least of some rounds."""

    def work() -> None:
        for _ in range(EVENTS):
            with comm.events.during("compute", "x"):
                pass

    found = []
    for _ in range(5):
        with comm.events.listen(Recorder(0)):
            start = time.thread_time()
            work()
            found.append((time.thread_time() - start) / EVENTS)
    return min(found)


def main() -> None:
    """Print the table on rank 0."""
    comm, zero3 = Communicator(MPI.COMM_WORLD), "--zero3" in sys.argv
    net = network()
    net.plan(BATCH, np.dtype(np.float32))
    replica = Replica(
        net,
        Groups.split(comm, Grid.cut(comm.size, comm.size if zero3 else 1)),
        collectives.get("ring"),
        optim.make("momentum", momentum=0.9),
        Methods(Sharded()) if zero3 else Methods(),
        StepOptions(batch=BATCH, microsteps=1),
    )
    x, y = np.ones((BATCH, WIDTHS[0]), np.float32), np.zeros(BATCH, np.int64)
    times: dict[bool, list[float]] = {False: [], True: []}
    recorder = Recorder()
    for turn in range(ROUNDS):
        for traced in (False, True) if turn % 2 else (True, False):
            with comm.events.listen(recorder) if traced else nullcontext():
                times[traced].append(slowest(comm, lambda: replica.step(lambda _: (x, y), 1e-4)))
    each = event_seconds(comm)
    if comm.rank == 0:
        events = len(recorder.slices) / ROUNDS
        share = events * each / statistics.median(times[False])
        ratios = [on / off for off, on in zip(times[False], times[True], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{comm.size} ranks, {'zero3' if zero3 else 'ddp'}, {ROUNDS} rounds")
        print(f"  {events:.0f} events of a rank, {1e6 * each:.1f} us each: {share:.2%} of a step")
        for traced, name in ((False, "untraced"), (True, "traced")):
            print(f"  {name:<9} {1e3 * statistics.median(times[traced]):.2f} ms a step")
        print(f"  traced / untraced = {middle:.3f} (quartiles {low:.3f}, {high:.3f})")


if __name__ == "__main__":
    main()
