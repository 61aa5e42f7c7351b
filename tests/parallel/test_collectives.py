"""The collectives on MPI: what tests/collectives shows with threads holds here too.

One communicator, lengths and all: the many cases are there, and MPI's own behaviour (blocking
sends, real sub-communicators) is tried here.  int64 sums have one right answer, so they are
compared between all families, MPI's own included.
"""

import numpy as np
import pytest
from families import addends, run, stated_sum

from refimpl import collectives
from refimpl.collectives import chunks
from refimpl.collectives.chunks import Call
from refimpl.world.communicator import Communicator

LENGTHS = [0, 101, 70_001]  # the last one is longer than what MPI sends without a handshake
STATING = [name for name in collectives.NAMES if name != "native"]


def run_all(family, comm, n, dtype):
    """Return the results of all operations the family has, root 0, by operation."""
    return {
        operation: run(family, operation, comm, addends(comm.size, n, dtype)[comm.rank])
        for operation in filter(family.has, collectives.OPERATIONS)
    }


@pytest.mark.wide
@pytest.mark.parametrize("name", collectives.NAMES)
def test_all_families_agree_on_integers(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    for n in LENGTHS:
        vectors = addends(comm.size, n, np.int64)
        own = chunks.slices(vectors[0], comm.size)
        total = np.sum(vectors, axis=0)
        want = {
            "allgather": np.concatenate([v[c] for v, c in zip(vectors, own, strict=True)]),
            "reduce_scatter": total[own[comm.rank]],
            "allreduce": total,
            "broadcast": vectors[0],
            "reduce": total,
            "alltoall": np.stack([v[own[comm.rank]] for v in vectors]),
        }
        for operation, got in run_all(collectives.get(name), comm, n, np.int64).items():
            if operation != "reduce" or comm.rank == 0:
                np.testing.assert_array_equal(got, want[operation], strict=True)
    comm.free()


@pytest.mark.parametrize("name", STATING)
def test_sums_are_the_stated_ones_to_the_last_bit(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    family, call = collectives.get(name), Call.of(101, comm.nodes)
    for dtype in (np.float32, np.float64):
        vectors = addends(comm.size, 101, dtype)
        for operation, got in run_all(family, comm, 101, dtype).items():
            copies = operation in ("allgather", "broadcast", "alltoall")
            if copies or (operation == "reduce" and comm.rank):
                continue
            want = stated_sum(family.orders(operation, call, vectors[0].itemsize), vectors)
            if operation == "reduce_scatter":
                want = want[call.chunks[comm.rank]]
            np.testing.assert_array_equal(got, want, strict=True)
    comm.free()


@pytest.mark.parametrize("name", STATING)
def test_ledger_equals_the_cost_exactly(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    family = collectives.get(name)
    for n in (0, 101):
        comm.ledger.clear()
        costs = [
            family.cost(operation, n, comm.nodes).sent_by(comm.rank)
            for operation in run_all(family, comm, n, np.float32)
        ]
        for link, count in comm.ledger.totals().items():
            assert count.messages == sum(cost[link].messages for cost in costs)
            assert count.bytes == sum(cost[link].bytes for cost in costs)
    comm.free()


@pytest.mark.parametrize("name", collectives.NAMES)
def test_chunks_of_unequal_length_and_any_dtype_are_gathered(world, name):
    family, p = collectives.get(name), world.size
    offsets = [0, *(3 * c for c in range(p - 1)), 3 * p + 7]
    for dtype in (np.uint8, np.uint32, np.float16, "i4,f8") if family.has("allgather") else ():
        want = np.random.default_rng(1).bytes(offsets[-1] * np.dtype(dtype).itemsize)
        x = np.zeros(offsets[-1], dtype)
        own = chunks.slices(x, p, offsets)[world.rank]
        x[own] = np.frombuffer(want, dtype)[own]
        family.allgather(world, x, offsets)
        assert x.tobytes() == want


def test_native_calls_are_entered_apart_from_messages(world):
    comm = Communicator(world.mpi)
    with comm.purpose("gradients"):
        run_all(collectives.get("native"), comm, 10, np.float64)
    assert comm.ledger.counts == {}
    assert comm.ledger.calls == {("gradients", name): [1, 80] for name in collectives.OPERATIONS}


def test_collectives_run_side_by_side_in_two_halves(world):
    color = world.rank % 2
    half = world.split(color)
    for name in collectives.NAMES:
        if not collectives.get(name).has("allreduce"):
            continue
        x = np.full(7, world.rank, np.int64)
        collectives.get(name).allreduce(half, x)
        assert x.tolist() == [sum(range(color, world.size, 2))] * 7
    half.free()
