"""Virtual time is the same on every machine, and of collectives what their cost says."""

import random
import time

import numpy as np
import pytest

from refimpl.collectives.cost import Link, Links
from refimpl.collectives.families import (
    EXPLICIT,
    HALVING_DOUBLING,
    HIERARCHICAL,
    RECURSIVE_DOUBLING,
)
from refimpl.world.threads import Deadlock, spawn
from refimpl.world.trace import Recorder, packets
from refimpl.world.virtual import Network, Spent

# Powers of two, so that nothing is rounded and equal is equal.
LINKS = Links(Link(2.0**-16, 2.0**-30), Link(2.0**-12, 2.0**-26), gamma=2.0**-29)
LAYOUTS = [
    *((0,), (0,) * 2, (0,) * 5, (0,) * 8, (0, 1), (0, 1, 2), (0, 0, 1, 1), (0, 1, 0, 1)),
    *((0, 0, 0, 1, 1), (0, 0, 1, 1, 2, 2), (0, 0, 0, 0, 1, 1, 1, 1)),
]


def timed(nodes, body, links=LINKS):
    network = Network(nodes, links.intra, links.inter, gamma=links.gamma)
    spawn(nodes, body, network)
    return network


def call(family, operation, n, nodes):
    """Return (simulated, predicted) seconds of one call."""

    def body(comm):
        comm.levels()
        getattr(family, operation)(comm, np.ones(n, np.float32))

    predicted = family.cost(operation, n, nodes).time(LINKS)
    return max(timed(nodes, body).clock), predicted


@pytest.mark.parametrize("nodes", LAYOUTS, ids=str)
def test_a_collective_takes_exactly_what_its_cost_says(nodes):
    p = len(nodes)
    for family in EXPLICIT:
        without_partner = family in (HALVING_DOUBLING, RECURSIVE_DOUBLING) and p & (p - 1)
        if family.unfit(nodes) is None and not without_partner:
            for operation in family.algorithms:
                for n in (p, 48 * p, 4096 * p):
                    simulated, predicted = call(family, operation, n, nodes)
                    if (family, operation) == (HIERARCHICAL, "reduce_scatter"):
                        assert 0.9 * predicted <= simulated <= predicted  # adds while some come
                        continue
                    assert simulated == predicted, (family.name, operation, n)


@pytest.mark.parametrize("nodes", [(0, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1)], ids=str)
def test_where_ranks_or_chunks_are_not_alike_it_is_near(nodes):
    pairs = {"halving-doubling": (0.95, 1), "recursive-doubling": (0.75, 1)}
    for family in EXPLICIT:
        if family.unfit(nodes) is None:
            least, most = pairs.get(family.name, (0.99, 1))
            for operation in family.algorithms:
                simulated, predicted = call(family, operation, 1000, nodes)
                assert least < simulated / predicted <= most, (family.name, operation)


def sender(plan):
    """Return a program: rank -> (seconds before, bytes, other rank), sent; the others receive."""

    def body(comm):
        for rank, (before, nbytes, to) in plan.items():
            if comm.rank == rank:
                comm._transport.network.compute(rank, before)
                comm.Send(np.zeros(nbytes, np.uint8), to)
            elif comm.rank == to:
                comm.Recv(np.zeros(nbytes, np.uint8), rank)

    return body


SLOW = Links(Link(1.0, 1.0), Link(2.0, 1.0))


def test_messages_on_a_nodes_link_share_it_from_when_they_meet():
    """100 bytes from 2 on, 50 from 52 on: then 50 are left of each, at half the pace."""
    network = timed((0, 0, 1, 1), sender({0: (0, 100, 2), 1: (50, 50, 3)}), SLOW)
    assert network.clock == [152, 152, 152, 152]
    assert network.spent[1] == Spent(compute=50, moving=102)
    assert network.spent[3] == Spent(moving=102, waiting=50)


def test_a_link_is_shared_where_it_enters_a_node_too():
    network = timed((0, 1, 2, 2), sender({0: (0, 10, 2), 1: (0, 10, 3)}), SLOW)
    assert network.clock == [22, 22, 22, 22]


def test_inside_a_node_a_rank_receives_one_message_after_the_other():
    def body(comm):
        if comm.rank < 2:
            comm.Send(np.zeros(9, np.uint8), 2)
        else:
            comm.wait([comm.Irecv(np.zeros(9, np.uint8), source) for source in (0, 1)])

    assert timed((0, 0, 0), body, SLOW).clock == [10, 20, 20]


def test_a_message_moves_when_both_have_started_and_computing_hides_it():
    def body(comm):
        network, buf = comm._transport.network, np.zeros(9, np.uint8)
        if comm.rank == 0:
            network.compute(0, 5)
            comm.Send(buf, 1)
        else:
            request = comm.Irecv(buf, 0)
            network.compute(1, 12)
            request.Wait()

    network = timed((0, 0), body, SLOW)
    assert network.spent == [Spent(5, 10, 0), Spent(12, 3, 0)]


def test_all_wait_for_the_last_and_get_each_others_objects():
    def body(comm):
        comm._transport.network.compute(comm.rank, comm.rank)
        half = comm.split(comm.rank % 2)
        half.barrier()
        return comm.allgather_object(comm.rank), half.members

    network = Network((0,) * 4, SLOW.intra, SLOW.inter)
    found = spawn((0,) * 4, body, network)
    assert found == [([0, 1, 2, 3], (r % 2, r % 2 + 2)) for r in range(4)]
    assert network.clock == [3] * 4
    assert network.spent[0] == Spent(waiting=3)


def test_the_trace_does_not_depend_on_how_threads_are_scheduled():
    def trace(seed):
        nodes = (0, 0, 1, 1)
        network, real = Network(nodes, *LINKS[:2]), random.Random(seed)

        def body(comm):
            clock = network.clock
            recorder = Recorder(clock=lambda: clock[comm.rank])
            time.sleep(real.random() / 100)
            with comm.events.listen(recorder), comm.events.during("phase", "step"):
                for family in EXPLICIT:
                    time.sleep(real.random() / 100)
                    network.compute(comm.rank, comm.rank * 2e-5)
                    if family.has("allreduce"):
                        family.allreduce(comm, np.ones(7, np.float32))
            return recorder.slices

        return b"".join(packets(spawn(nodes, body, network), [f"rank {r}" for r in range(4)]))

    first = trace(1)
    assert len(first) > 5000
    assert trace(2) == first


def test_ranks_that_wait_for_each_other_are_told_and_the_error_of_one_is_the_error():
    def waiting(comm):
        comm.Recv(np.zeros(1), 1 - comm.rank)

    with pytest.raises(Deadlock):
        timed((0, 0), waiting)

    def failing(comm):
        assert comm.rank == 0, "why"
        comm.Recv(np.zeros(1), 1)

    with pytest.raises(AssertionError, match="why"):
        timed((0, 0), failing)
