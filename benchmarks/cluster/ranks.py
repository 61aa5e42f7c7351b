"""What runs on every rank of the cluster: measures, and writes figures without judging them.

    mpiexec ... python -m mpi4py ranks.py JOB.json RESULT.json

The job says which; see `main`.  All of it, the links' alpha and beta included, is timed in turn,
round by round, in one run.  A round's time is that of its slowest rank.  The counters of each
host's interface are read before and after each measured call.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import training
from messages import ADDED, MESSAGES
from mpi4py import MPI
from numpy.typing import NDArray

from refimpl import collectives as families
from refimpl import optim
from refimpl.collectives import chunks
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.numerics.rng import stream
from refimpl.run.bench.network import network
from refimpl.support.errors import require
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

COUNTERS = Path("/sys/class/net/e0/statistics")
Works = dict[str, Callable[[], object]]


def main(job: dict) -> dict:
    """Return the figures of a job: of the collectives, of the steps and of the links."""
    comm = Communicator(MPI.COMM_WORLD)
    hosts, k = job["hosts"], job["ranks_per_host"]
    expected = tuple(rank // k for rank in range(hosts * k))
    require(comm.nodes == expected, f"MPI sees nodes {comm.nodes} in place of {expected}")
    works = dict(links(comm))
    trained = training.strategies(comm, job) if "runs" in job else {}
    works |= trained
    if "bytes" in job:
        works |= collectives(comm, job["bytes"])
    if "widths" in job:
        works |= steps(comm, job)
    figures = in_turn(comm, works, job["rounds"])
    messages = {name: steps.message_bytes() for name, steps in trained.items()}
    found = {"hosts": hosts, "ranks_per_host": k, "figures": figures}
    return found | ({"message_bytes": messages} if trained else {})


# ------------------------------------------------------------------------------------ the links


def links(comm: Communicator) -> Works:
    """Return what shows alpha, beta and gamma: exchanges of small and large messages, additions.

    Inside the hosts every rank sends to the right and receives from the left, all ranks at once,
    since they share the cores; between the hosts one rank of each does, since ``inter`` of
    `refimpl.collectives.cost.Links` is what a whole host has.
    """
    within, across = comm.levels()
    peers = {"intra": within, "inter": across if within.rank == 0 else None}
    works: Works = {
        f"{link} {size}": partial(_exchange, ring, message.bytes, message.times)
        for link, ring in peers.items()
        for size, message in MESSAGES.items()
    }
    total, arrived = (np.ones(ADDED.bytes // 4, np.float32) for _ in range(2))

    def add() -> None:
        for _ in range(ADDED.times):
            np.add(total, arrived, out=total)

    return works | {"add": add}


def _exchange(ring: Communicator | None, nbytes: int, times: int) -> None:
    if ring is None:
        return
    out, arrived = ring.scratch(nbytes, np.uint8, slot=1), ring.scratch(nbytes, np.uint8, slot=2)
    right, left = (ring.rank + 1) % ring.size, (ring.rank - 1) % ring.size
    for _ in range(times):
        ring.Sendrecv(out, right, recvbuf=arrived, source=left)


# ------------------------------------------------------------------------------ the collectives


def collectives(comm: Communicator, nbytes: int) -> Works:
    """Return both operations on a float32 vector, by the flat ring and hierarchically."""
    x = np.zeros(nbytes // 4, np.float32)
    return {
        f"{operation} {name}": partial(getattr(families.get(name), operation), comm, x)
        for operation in ("allgather", "reduce_scatter")
        for name in ("ring", "hierarchical")
    }


# --------------------------------------------------------------------------------- what is timed


def in_turn(comm: Communicator, works: Works, rounds: int) -> dict:
    """Return, for each piece of work, its seconds in every round and what went over the links.

    ``ledger``: bytes between hosts that all ranks entered in the ledger, in one round; ``inside``
    the hosts.  ``entered``, ``left``: per host, what its interface counted, in one round.
    """
    for work in works.values():
        work()  # opens connections, touches memory
    figures = {name: _Figures(comm) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            figures[name].measure(work)
    return {name: figure.summary(rounds) for name, figure in figures.items()}


class _Figures:
    def __init__(self, comm: Communicator) -> None:
        self.comm, self.seconds = comm, []
        self.sent, self.wire = (np.zeros(2, np.int64) for _ in range(2))
        self.reads = comm.nodes.index(comm.nodes[comm.rank]) == comm.rank

    def _counters(self) -> NDArray:
        names = ("rx_bytes", "tx_bytes") if self.reads else ()
        return np.array([int((COUNTERS / name).read_text()) for name in names] or [0, 0])

    def _ledger(self) -> NDArray:
        return np.array([self.comm.ledger.total(link).bytes for link in ("inter", "intra")])

    def measure(self, work: Callable[[], object]) -> None:
        comm = self.comm
        comm.barrier()
        wire, sent = self._counters(), self._ledger()
        comm.barrier()
        start = time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - start)
        self.sent += self._ledger() - sent
        comm.barrier()
        self.wire += self._counters() - wire

    def summary(self, rounds: int) -> dict:
        everyones = self.comm.allgather_object((self.seconds, self.sent, self.wire, self.reads))
        wire = [w / rounds for _, _, w, reads in everyones if reads]
        between, inside = sum(e[1] for e in everyones) / rounds
        return {
            "seconds": [max(ranks) for ranks in zip(*(e[0] for e in everyones), strict=True)],
            "ledger": float(between),
            "inside": float(inside),
            "entered": [float(host[0]) for host in wire],
            "left": [float(host[1]) for host in wire],
        }


# ----------------------------------------------------------------------------------- whole steps


class Silent:
    """Collectives that send nothing: what is left of a step is its computation."""

    def allgather(self, comm: Communicator, x: NDArray) -> None:
        """Leave x as it is."""

    def reduce_scatter(self, comm: Communicator, x: NDArray) -> NDArray:
        """Return this rank's chunk as it is."""
        return x[chunks.slices(x, comm.size)[comm.rank]]

    def allreduce(self, comm: Communicator, x: NDArray) -> None:
        """Leave x as it is."""


def steps(comm: Communicator, job: dict) -> Works:
    """Return one training step of an MLP by each of the job's methods.

    A method has ``partition``, ``family`` and ``every_microstep``.  Beside each, as
    ``NAME, silent``, the same step with nothing sent, all ranks computing at once.
    """
    rng = stream(0, "benchmark cluster", comm.rank)
    batch, widths = job["batch"], tuple(job["widths"])
    x = rng.normal(size=(batch, widths[0])).astype(np.float32)
    y = rng.integers(0, widths[-1], batch)
    works: Works = {}
    for name, method in job["methods"].items():
        groups = Groups.split(comm, Grid.cut(comm.size, method["partition"]))
        methods = Methods(Sharded(), Exact(every_microstep=method["every_microstep"]))
        options = StepOptions(batch=batch, microsteps=job["microsteps"])
        for label, family in (
            (name, families.get(method["family"])),
            (f"{name}, silent", Silent()),
        ):
            net = network(widths)
            net.plan(batch, np.dtype(np.float32))
            momentum = optim.make("momentum", momentum=0.9)
            replica = Replica(net, groups, family, momentum, methods, options)
            works[label] = partial(replica.step, lambda _: (x, y), 1e-4)
    return works


if __name__ == "__main__":
    figures = main(json.loads(Path(sys.argv[1]).read_text()))
    if MPI.COMM_WORLD.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(figures))
