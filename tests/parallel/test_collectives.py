"""The collectives on MPI: what tests/collectives shows with threads holds here too.

One communicator, lengths and all: the many cases are there, and MPI's own behaviour (blocking
sends, real sub-communicators) is tried here.  int64 sums have one right answer, so they are
compared between all families, MPI's own included.
"""

import numpy as np
import pytest

from refimpl import collectives
from refimpl.collectives import chunks, halving_doubling, hierarchical, order, ring, tree
from refimpl.world.communicator import Communicator

LENGTHS = [0, 101, 70_001]  # the last one is longer than what MPI sends without a handshake


def addend(rank, n, dtype):
    rng = np.random.default_rng([11, rank, n])
    return (rng.standard_normal(n) * 1000).astype(dtype)


def run_all(family, comm, n, dtype):
    """Return the results of all operations the family has, root 0, by operation."""
    own = chunks.slices(np.empty(n), comm.size)[comm.rank]
    x = {name: addend(comm.rank, n, dtype) for name in collectives.OPERATIONS}
    for operation in ("allreduce", "broadcast", "reduce"):
        getattr(family, operation)(comm, x[operation])
    if family.name != "tree":
        mask = np.zeros(n, bool)
        mask[own] = True
        x["allgather"][~mask] = 0
        family.allgather(comm, x["allgather"])
        x["reduce_scatter"] = family.reduce_scatter(comm, x["reduce_scatter"])
    return x


@pytest.mark.parametrize("name", collectives.NAMES)
def test_all_families_agree_on_integers(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    for n in LENGTHS:
        vectors = [addend(rank, n, np.int64) for rank in range(comm.size)]
        total = np.sum(vectors, axis=0)
        chunk = chunks.slices(total, comm.size)
        got = run_all(collectives.get(name), comm, n, np.int64)
        np.testing.assert_array_equal(got["allreduce"], total, strict=True)
        np.testing.assert_array_equal(got["broadcast"], vectors[0], strict=True)
        assert comm.rank or np.array_equal(got["reduce"], total)
        if name != "tree":
            np.testing.assert_array_equal(got["reduce_scatter"], total[chunk[comm.rank]])
            whole = [v[b] for v, b in zip(vectors, chunk, strict=True)]
            np.testing.assert_array_equal(got["allgather"], np.concatenate(whole), strict=True)
    comm.free()


@pytest.mark.parametrize("name", ["ring", "halving-doubling", "tree", "hierarchical"])
def test_sums_are_the_documented_ones_to_the_last_bit(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    p, r = comm.size, comm.rank
    for dtype in (np.float32, np.float64):
        vectors = [addend(rank, 101, dtype) for rank in range(p)]
        got = run_all(collectives.get(name), comm, 101, dtype)
        if name in ("ring", "halving-doubling"):
            chunk_order = {"ring": ring.order, "halving-doubling": halving_doubling.order}[name]
            for b, part in enumerate(chunks.slices(vectors[0], p)):
                want = order.add_up(chunk_order(p, b), [v[part] for v in vectors])
                np.testing.assert_array_equal(got["allreduce"][part], want, strict=True)
                assert b != r or np.array_equal(got["reduce_scatter"], want)
            whole = tree.order(p)
        elif name == "hierarchical":
            own = chunks.slices(vectors[0], p)[r]
            want = order.add_up(hierarchical.order(comm.nodes, r), [v[own] for v in vectors])
            np.testing.assert_array_equal(got["reduce_scatter"], want, strict=True)
            whole = hierarchical.reduce_order(comm.nodes)
        else:
            whole = tree.order(p)
            np.testing.assert_array_equal(got["allreduce"], order.add_up(whole, vectors))
        assert r or np.array_equal(got["reduce"], order.add_up(whole, vectors))
    comm.free()


@pytest.mark.parametrize("name", ["ring", "halving-doubling", "tree", "hierarchical", "auto"])
def test_ledger_equals_the_cost_exactly(world, name):
    comm = Communicator(world.mpi, ranks_per_node=2 - world.size % 2)
    family = collectives.get(name)
    for n in (0, 101):
        comm.ledger.clear()
        run_all(family, comm, n, np.float32)
        costs = [
            family.cost(operation, n, comm.nodes).sent_by(comm.rank)
            for operation in collectives.OPERATIONS
            if family.has(operation)
        ]
        for link, count in comm.ledger.totals().items():
            assert count.messages == sum(cost[link].messages for cost in costs)
            assert count.bytes == sum(cost[link].bytes for cost in costs)
    comm.free()


@pytest.mark.parametrize("name", ["ring", "halving-doubling", "hierarchical", "native", "auto"])
def test_chunks_of_unequal_length_and_any_dtype_are_gathered(world, name):
    p = world.size
    offsets = [0, *(3 * b for b in range(p - 1)), 3 * p + 7]
    for dtype in (np.uint8, np.uint32, np.float16, "i4,f8"):
        want = np.random.default_rng(1).bytes(offsets[-1] * np.dtype(dtype).itemsize)
        x = np.zeros(offsets[-1], dtype)
        own = chunks.slices(x, p, offsets)[world.rank]
        x[own] = np.frombuffer(want, dtype)[own]
        collectives.get(name).allgather(world, x, offsets)
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
        x = np.full(7, world.rank, np.int64)
        collectives.get(name).allreduce(half, x)
        assert x.tolist() == [sum(range(color, world.size, 2))] * 7
    half.free()
