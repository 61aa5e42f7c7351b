"""The ring's collectives in virtual time, worked out for all of its ranks at once.

p ranks send p (p - 1) messages round a ring, and for each of them another thread has its turn.
Where nobody else is on a ring's links, what a message takes follows from the clocks of its two
ends alone.  So all ranks meet, the last one to come works out every step over arrays, and all go
on with the clocks, the sums and the ledgers that the messages would have left, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from refimpl.collectives import Collectives, chunks, ring
from refimpl.collectives.chunks import Array, Offsets
from refimpl.collectives.interface import Family
from refimpl.collectives.order import around
from refimpl.world.communicator import Communicator
from refimpl.world.virtual import Meeting, Network, Spent


def at_once(collectives: Collectives, network: Network) -> Collectives:
    """Return the collectives with those that go round a ring worked out at once, where they can.

    For blocking calls of which no message is heard but by the ledger, with nothing else under way.
    """
    if not isinstance(collectives, Family):
        return collectives
    ours: dict[Callable[..., object], Callable[..., object]] = {
        ring.allgather: partial(_allgather, network),
        ring.reduce_scatter: partial(_reduce_scatter, network),
        ring.allreduce: partial(_allreduce, network),
    }
    return replace(
        collectives,
        algorithms={
            operation: algorithm._replace(run=ours.get(algorithm.run, algorithm.run))
            for operation, algorithm in collectives.algorithms.items()
        },
    )


def alone(nodes: tuple[int, ...], world: tuple[int, ...]) -> bool:
    """Tell whether a ring of ranks on these nodes has its links to itself, of all in the world.

    It has if it stays on a node; and if it leaves and enters each node once, which is all its own.

    >>> world = (0, 0, 1, 1)
    >>> [alone(nodes, world) for nodes in ((1, 1), (0, 0, 1, 1), (0, 1), (0, 1, 0, 1))]
    [True, True, False, False]
    """
    crossing = [(a, b) for a, b in zip(nodes, nodes[1:] + nodes[:1], strict=True) if a != b]
    held, there = Counter(nodes), Counter(world)
    whole = all(held[node] == there[node] for node in held)
    once = all(len(set(ends)) == len(crossing) for ends in zip(*crossing, strict=True))
    return not crossing or (whole and once)


def _allgather(
    network: Network, comm: Communicator, x: Array, offsets: Offsets | None = None
) -> None:
    if not alone(comm.nodes, network.nodes):
        return ring.allgather(comm, x, offsets)
    chunk = chunks.slices(x, comm.size, offsets)
    turn = _Turn(network, comm, chunk, ring.gathered, x.itemsize, adds=False)

    def gather(everyones: list[Array]) -> None:
        turn.run()
        parts = zip(everyones, chunk, strict=True)
        whole = np.concatenate([each[part] for each, part in parts])
        for each in everyones:
            each[:] = whole

    turn.meet(x, gather)
    return None


def _reduce_scatter(
    network: Network, comm: Communicator, x: Array, offsets: Offsets | None = None
) -> Array:
    if not alone(comm.nodes, network.nodes):
        return ring.reduce_scatter(comm, x, offsets)
    chunk = chunks.slices(x, comm.size, offsets)
    turn = _Turn(network, comm, chunk, ring.reduced, x.itemsize, adds=True)

    def reduce(everyones: list[Array]) -> None:
        turn.run()
        for owner, part in enumerate(chunk):
            first, *others = (everyones[rank][part] for rank in around(comm.size, owner))
            total = first.copy()
            for each in others:
                total += each
            everyones[owner][part] = total

    turn.meet(x, reduce)
    return x[chunk[comm.rank]]


def _allreduce(network: Network, comm: Communicator, x: Array) -> None:
    _reduce_scatter(network, comm, x)
    _allgather(network, comm, x)


@dataclass(frozen=True)
class _Turn:
    """One turn of a ring: who sends which chunk in which step is ``sent``, as in `ring`."""

    network: Network
    comm: Communicator
    chunk: list[slice]
    sent: Callable[[int, Any, int], Any]
    itemsize: int
    adds: bool

    def meet(self, x: Array, then: Meeting) -> None:
        """Wait for all; the last does ``then``.  Count what this rank would have sent."""
        comm = self.comm
        self.network.gather(("ring", comm.members), comm.members, comm.members[comm.rank], x, then)
        right = (comm.rank + 1) % comm.size
        link = "intra" if comm.nodes[right] == comm.nodes[comm.rank] else "inter"
        for step in range(comm.size - 1):
            part = self.chunk[self.sent(comm.size, comm.rank, step)]
            nbytes = (part.stop - part.start) * self.itemsize
            comm.events.end(comm.events.begin("send", "", comm.members[right], nbytes, link))

    def run(self) -> None:
        """Move the clocks of all ranks as the messages would, each of which goes to the right."""
        network, ranks, p = self.network, self.comm.members, self.comm.size
        crosses = np.array(self.comm.nodes) != np.roll(self.comm.nodes, -1)
        (alpha, beta), (alpha_out, beta_out) = network.intra, network.inter
        sizes = np.array([part.stop - part.start for part in self.chunk]) * self.itemsize
        clock = np.array([network.clock[rank] for rank in ranks])
        compute, moving, waiting = np.array([network.spent[rank] for rank in ranks]).T
        for step in range(p - 1):
            nbytes = sizes[self.sent(p, np.arange(p), step)] * network.scale
            begun = np.maximum(clock, np.roll(clock, -1))
            inside = begun + (alpha + nbytes * beta)
            done = np.where(crosses, begun + alpha_out + nbytes * beta_out, inside)
            received = np.roll(begun, 1), np.roll(done, 1)
            for begin, end in (received, (begun, done)):  # it waits for one, then for the other
                before, clock = clock, np.maximum(clock, end)
                moves = np.minimum(np.maximum(begin, before), clock)
                moving, waiting = moving + (clock - moves), waiting + (moves - before)
            if self.adds:
                adding = np.roll(nbytes, 1) * network.gamma
                clock, compute = clock + adding, compute + adding
        spent = np.stack([compute, moving, waiting], 1).tolist()
        for rank, now, each in zip(ranks, clock.tolist(), spent, strict=True):
            network.clock[rank], network.spent[rank] = now, Spent(*each)
