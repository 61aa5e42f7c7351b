"""Rings that are worked out at once leave what their messages would, to the last bit."""

import numpy as np
import pytest

from refimpl.collectives.families import RING
from refimpl.plan.rings import alone, at_once
from refimpl.world.threads import spawn
from refimpl.world.virtual import Network

LINKS = (3e-6, 5e-12), (1.4e-5, 4e-11)
LAYOUTS = [(0,) * 5, (0, 0, 0, 1, 1), (0, 1, 2), (1, 1, 0, 0, 2), (0, 1, 0, 1)]


def program(nodes, split, together):
    """Run every operation of the ring; return clocks, what they consist of, results, ledgers."""
    network = Network(nodes, *LINKS, scale=1e5, gamma=1e-12)

    def body(comm):
        ring = at_once(RING, network) if together else RING
        part, rng = comm.split(comm.rank * split // comm.size), np.random.default_rng(comm.rank)
        network.compute(comm.rank, 1e-4 * rng.random())
        x, found = rng.normal(size=29), []
        cut = [0, 0, *sorted(29 * k // part.size for k in range(2, part.size)), 29]
        for offsets in (None, cut[: part.size] + [29]):
            found.append(ring.reduce_scatter(part, x, offsets).tolist())
            network.compute(comm.rank, 1e-5 * rng.random())
            ring.allgather(part, x, offsets)
            ring.allreduce(part, x)
            ring.broadcast(part, x)
            found.append(x.tolist())
        return found, comm.ledger.by_purpose()

    return spawn(nodes, body, network), network.clock, network.spent


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("nodes", LAYOUTS, ids=str)
def test_clocks_sums_and_ledgers_are_those_of_the_messages(nodes, split):
    assert program(nodes, split, together=True) == program(nodes, split, together=False)


def test_they_are_worked_out_where_nobody_else_is_on_their_links(monkeypatch):
    posted = []
    monkeypatch.setattr(Network, "post", lambda *a: posted.append(a))
    nodes, network = (0, 0, 1, 1), Network((0, 0, 1, 1), *LINKS)

    def body(comm):
        at_once(RING, network).allreduce(comm, np.ones(7))

    spawn(nodes, body, network)
    assert alone(nodes, nodes) and not posted
    assert not alone((0, 1), nodes)  # the other two may send between the nodes at the same time
    assert not alone((0, 1, 0, 1), (0, 1, 0, 1))  # two messages leave each node
