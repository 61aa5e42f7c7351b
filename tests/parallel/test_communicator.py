"""The communicator knows its nodes and counts what is sent."""

import numpy as np
import pytest
from listeners import Heard

from refimpl.collectives import ring
from refimpl.support.errors import UserError
from refimpl.world import pernode
from refimpl.world.communicator import Communicator
from refimpl.world.events import KINDS
from refimpl.world.ledger import Count, summed
from refimpl.world.threads import spawn


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
    assert comm.events.purpose == "other"
    everyones = summed(comm.allgather_object(comm.ledger.totals()))
    assert everyones["intra"] + everyones["inter"] == (4 * comm.size, 68 * comm.size)


@pytest.mark.parametrize("length", [0, 100, 130, 100_000])
def test_objects_arrive_whole_though_only_one_is_long(world, length):
    """Some go in rows of a fixed length, and others do not fit."""
    last = world.size - 1
    mine = [world.rank, b"x" * (length if world.rank == last else 3)]
    everyones = [[rank, b"x" * (length if rank == last else 3)] for rank in range(world.size)]
    assert world.allgather_object(mine) == everyones
    assert world.bcast_object(mine, root=last) == everyones[last]


def test_listener_is_told_the_world_ranks_of_both_ends(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    assert comm.events.rank == world.rank
    backwards = comm.split(0, key=-comm.rank)
    assert backwards.members == tuple(reversed(range(comm.size)))
    with backwards.events.listen(heard := Heard("send", "receive")):
        send_right(backwards)
    left, right = ((world.rank + step) % world.size for step in (-1, 1))
    sent, received = heard.begun
    for event, kind, peer in ((sent, "send", left), (received, "receive", right)):
        link = "intra" if peer // 2 == world.rank // 2 else "inter"
        assert event[:6] == (kind, "", "other", peer, 20, link)
    assert (sent.value == backwards.rank).all()
    assert (received.value == backwards.members.index(right)).all()
    backwards.free()


def test_ranks_that_are_threads_tell_the_same(world):
    def body(comm):
        within, across = comm.levels()
        with comm.events.listen(heard := Heard(*KINDS)), comm.purpose("models"):
            for part in (comm, within, across):
                ring.allreduce(part, np.ones(7, np.float32))
            requests = [comm.Irecv(np.empty(1), comm.rank), comm.Isend(np.empty(1), comm.rank)]
            comm.wait(requests)
            comm.barrier()
        return [(what, *event[:-1]) for what, event in heard.log]

    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    assert body(comm) == spawn(comm.nodes, body)[comm.rank]
    comm.free()


def test_calls_of_the_library_are_events_and_counted_apart(world):
    comm, x = Communicator(world.mpi), np.ones(world.size, np.float32)
    n, counts = x.nbytes, [1] * world.size
    with comm.events.listen(heard := Heard("library")), comm.purpose("models"):
        comm.Allreduce(comm.IN_PLACE, x)
        comm.Reduce_scatter(x, np.empty(1, np.float32), counts)
        comm.Allgather(comm.IN_PLACE, x)
        comm.Allgatherv(comm.IN_PLACE, x, counts)
        comm.Bcast(x)
        comm.Reduce(x, np.empty_like(x) if comm.rank == 0 else None)
    names = ["allreduce", "reduce_scatter", "allgather", "allgather", "broadcast", "reduce"]
    assert [event[:5] for event in heard.begun] == [
        ("library", name, "models", -1, n) for name in names
    ]
    assert len(heard.log) == 2 * len(names)
    assert comm.ledger.total() == (0, 0)
    assert comm.ledger.calls == {
        ("models", name): [names.count(name), names.count(name) * n] for name in set(names)
    }


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


@pytest.mark.parametrize("room", [True, False, "unseen by rank 1"])
def test_what_is_sent_once_per_node_is_one_memory_of_its_ranks_and_without_room_several(
    world, room, tmp_path, monkeypatch
):
    monkeypatch.setattr(pernode.tempfile, "tempdir", str(tmp_path if room else tmp_path / "none"))
    per_node = 2
    if room == "unseen by rank 1":
        per_node = 3  # so rank 2 has seen it
        if world.rank == 1:
            monkeypatch.setattr(pernode, "_mapped", lambda *args: None)
    comm, shape = Communicator(world.mpi, ranks_per_node=per_node), (2, 3)
    given = pernode.room(comm, shape, np.float64) if comm.rank == 0 else None
    if given is not None:
        given[:] = np.arange(6.0).reshape(shape)
        pernode.room(comm, shape, np.float64)  # never sent: gone with the array
    found = pernode.sent_once(comm, given, shape, np.float64)
    assert given is None or np.shares_memory(found, given)  # no copy
    assert type(found) is np.ndarray
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not found.flags.writeable
    assert not list(tmp_path.iterdir())
    world.barrier()
    first = comm.rank % per_node == 0
    if first:
        found.flags.writeable = True
        found[1, 2] = 7
    world.barrier()
    assert found[1, 2] == (7 if first or room is True else 5)
    comm.free()
