"""What would be won by messages that move while a rank computes?  In virtual time.

    python benchmarks/overlap.py            the table of docs/time.md
    python benchmarks/overlap.py -n 8       with fewer ranks

Each row is a step of an MLP by MiCS with hop 2 after the last backward pass, as the trainer does
it, and *during* it: a second thread of each rank then all-reduces the piece of a unit as soon as
hop 1 has made it.  Both with gathers when they are needed and with ``--prefetch``.  The second
thread is a what-if: it sends what such a program would, of arrays of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's refimpl

import numpy as np

from refimpl import collectives, optim
from refimpl.collectives.cost import Link, Links
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.plan.simulate import Speed, seconds_of
from refimpl.run.bench.network import network
from refimpl.support.text import table
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid
from refimpl.world.virtual import Network

WIDTHS, ROWS, SCALE = (64,) * 9, 8, 1000.0  # 8 equal units
LINKS = Links(Link(3e-6, 5e-12), Link(1.4e-5, 4e-11))  # 200 and 25 GB/s
K = 4  # ranks of a node


def step(n: int, p: int, flops: float, prefetch: bool, during: bool) -> float:
    """Return the seconds of one step on n ranks, in partition groups of p."""
    node = tuple(rank // K for rank in range(n))
    clocks = Network(node * 2, LINKS.intra, LINKS.inter, SCALE, hosts=[*range(n)] * 2)
    grid, ring = Grid.cut(n, p), collectives.get("ring")

    def body(comm: Communicator) -> float:
        second, own = divmod(comm.rank, n)
        ranks = comm.split(second)
        assert ranks is not None
        groups, net, token = Groups.split(ranks, grid), network(WIDTHS), np.zeros(0, np.uint8)
        net.plan(ROWS, np.dtype(np.float32))
        if second:
            for layer in reversed(net.units) if during else ():
                comm.Recv(token, own)
                ring.allreduce(groups.gradient, np.zeros(layer.size // p, np.float32))
            comm.Send(token, own)
            return 0.0
        methods = Methods(Sharded(prefetch=prefetch))
        options = StepOptions(batch=ROWS, microsteps=1)
        replica = Replica(net, groups, ring, optim.make("momentum"), methods, options)
        comm.events.add(Speed(clocks, own, seconds_of(net, ROWS, SCALE, flops)))
        if during:
            _hand_over(replica, comm, n + own, token)
        x, y = np.zeros((ROWS, WIDTHS[0]), np.float32), np.zeros(ROWS, np.int64)
        replica.step(lambda microstep: (x, y), 0.1)
        if not during:
            comm.Recv(token, n + own)
        return clocks.clock[own]

    return max(spawn(clocks.nodes, body, clocks))


def _hand_over(replica: Replica, comm: Communicator, thread: int, token: np.ndarray) -> None:
    """Have the second thread do hop 2, unit by unit; the step waits for it where hop 2 was."""
    reduce = replica.partition.reduce

    def reduced(layer, first):  # type: ignore[no-untyped-def]  # that of the partition axis
        reduce(layer, first)
        if layer.parameters:
            comm.Isend(token, thread)

    def combine(gradient: np.ndarray) -> np.ndarray:
        comm.Recv(token, thread)
        return gradient

    replica.partition.reduce = reduced  # type: ignore[method-assign]
    replica.gradient.combine = combine  # type: ignore[method-assign]


def rows(n: int, groups: tuple[int, ...]) -> list[list[str]]:
    """Return a row for each group size and speed of a rank."""
    found = []
    for p in groups:
        for flops in (1e12, 1e13):
            times = [
                1e3 * step(n, p, flops, prefetch, during)
                for prefetch, during in (
                    (False, False),
                    (True, False),
                    (False, True),
                    (True, True),
                )
            ]
            gains = [f"{1 - time / times[0]:.1%}" for time in times[1:]]
            told = [f"{time:.3f}" for time in times]
            cells = [c for pair in zip(told[1:], gains, strict=True) for c in pair]
            found.append([str(p), f"{flops / 1e12:g}", told[0], *cells])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=16, help="ranks (default: 16)")
    n = parser.parse_args().n
    groups = tuple(p for p in (2, 4, 8) if p < n)
    head = ["p", "TFLOPS", "step ms", "prefetch", "less", "hop 2 during", "less", "both", "less"]
    print(f"{n} ranks on nodes of {K}, 8 units of {64 * 65 * SCALE / 1e6:.2f} M parameters")
    print(table(head, rows(n, groups), left=0))


if __name__ == "__main__":
    main()
