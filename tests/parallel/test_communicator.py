"""The communicator knows its nodes and counts what is sent."""

import numpy as np
import pytest

from refimpl.support.errors import UserError
from refimpl.world.communicator import Communicator
from refimpl.world.ledger import Count, summed


def send_right(comm, n=5, dtype=np.float32):
    """Every rank sends n elements to its right neighbour (of one rank: to itself)."""
    p, r = comm.size, comm.rank
    arrived = np.empty(n, dtype)
    comm.Sendrecv(np.full(n, r, dtype), (r + 1) % p, recvbuf=arrived, source=(r - 1) % p)
    assert (arrived == (r - 1) % p).all()


def test_virtual_nodes_hold_k_neighbours_and_the_last_one_the_rest(world):
    for k in range(1, world.size + 2):
        comm = Communicator(world.mpi, ranks_per_node=k)
        assert comm.nodes == tuple(rank // k for rank in range(world.size))


def test_ranks_of_one_machine_are_on_node_zero(world):
    assert Communicator(world.mpi).nodes == (0,) * world.size


def test_number_of_ranks_per_node_below_one_is_refused(world):
    with pytest.raises(UserError, match="at least one rank"):
        Communicator(world.mpi, ranks_per_node=0)


def test_ranks_per_node_that_differ_are_refused_on_all_ranks(world):
    if world.size == 1:
        return  # one rank cannot disagree
    with pytest.raises(UserError, match="differs between ranks"):
        Communicator(world.mpi, ranks_per_node=world.rank + 1)


def test_what_is_sent_is_counted_by_link_and_purpose(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    with comm.purpose("models"):
        send_right(comm)
        with comm.purpose("gradients"):
            send_right(comm, dtype=np.float64)
            send_right(comm, n=0)
        comm.wait([comm.Irecv(np.empty(1), comm.rank), comm.Isend(np.empty(1), comm.rank)])
    right = (comm.rank + 1) % comm.size
    link = "intra" if comm.rank // 2 == right // 2 else "inter"
    assert comm.ledger.total(purpose="models") == (2, 28)
    assert comm.ledger.total(link, "gradients") == (2, 40)
    assert comm.ledger.total("intra", "models").messages == 1 + (link == "intra")
    assert comm.ledger.total() == (4, 68)
    assert comm.ledger.purpose == "other"
    everyones = summed(comm.allgather_object(comm.ledger.totals()))
    assert everyones["intra"] + everyones["inter"] == (4 * comm.size, 68 * comm.size)


def test_ledger_is_told_the_world_ranks_of_both_ends(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    heard = []
    comm.ledger.sent = lambda *message: heard.append(message)
    backwards = comm.split(0, key=-comm.rank)
    assert backwards.members == tuple(reversed(range(comm.size)))
    send_right(backwards)
    left = (world.rank - 1) % world.size
    link = "intra" if left // 2 == world.rank // 2 else "inter"
    assert heard == [(world.rank, left, 20, link)]
    backwards.free()


def test_parts_keep_the_nodes_and_the_ledger(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    odd = comm.split(comm.rank % 2)
    even_odd = range(comm.rank % 2, comm.size, 2)
    assert odd.members == tuple(even_odd)
    assert odd.nodes == tuple(r // 2 for r in even_odd)
    assert odd.ledger is comm.ledger
    assert comm.split(None) is None
    assert odd.split(0).members == odd.members
    odd.free()


def test_levels_are_the_node_and_the_peers_on_other_nodes(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    within, across = comm.levels()
    r, p = comm.rank, comm.size
    assert within.members == tuple(m for m in range(p) if m // 2 == r // 2)
    assert across.members == tuple(range(r % 2, p, 2))
    assert comm.levels()[0] is within
    comm.free()


def test_scratch_keeps_its_memory_unless_it_must_grow(world):
    comm = Communicator(world.mpi)
    large = comm.scratch(100, np.float64)
    assert large.size == 100
    assert large.dtype == np.float64
    assert np.shares_memory(comm.scratch(7, np.float32), large)
    assert not np.shares_memory(comm.scratch(7, np.float32, slot=1), large)
    assert comm.scratch(0, np.int64).size == 0


def test_counts_add_up():
    assert sum([Count(1, 10), Count(2, 30)], Count()) - Count(1, 10) == Count(2, 30)
