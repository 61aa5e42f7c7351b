"""Training on MPI: what tests/methods/test_training.py shows with threads holds here too."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import rows
import tiny

from refimpl import collectives, nn, optim
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import STRATEGIES, Methods
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid, divisors


def serial(comm, **options):
    """Return what serial training ends with, computed by every rank for itself."""
    single = comm.split(comm.rank)
    result = tiny.trained(single, **options)
    single.free()
    return result


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_trains_as_it_does_with_threads_for_ranks(world, name):
    """The same bits and the same messages, on the grid in the middle of those that it can have."""
    cases = [case for case in rows.cuts(world.size) if case.name == name]
    if not cases:
        return
    case = cases[len(cases) // 2]
    options = {"micro_batches": world.size, "steps": 4}

    def told(ran):
        return ran.trained.digest, [phase.sent for phase in ran.phases]

    got = told(rows.watched(world, case.grid, case.methods, **options))
    want = None
    if world.rank == 0:
        want = [told(one) for one in rows.ran(case.grid, case.methods, **options)]
    assert got == world.bcast_object(want)[world.rank]


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "native"])
def test_exact_reduction_ends_with_serials_bits_for_every_partition(world, algorithm):
    options = {"steps": 3, "micro_batches": 2 * world.size, "algorithm": algorithm}
    want = serial(world, **options).digest
    for partition in divisors(world.size):
        got = tiny.trained(world, partition=partition, stage=3, **options)
        assert got.digest == want, partition


def test_prefetching_changes_neither_bits_nor_what_is_sent(world):
    """The messages of a gather under way pass those of a reduce-scatter on the same ranks."""
    options = {"steps": 3, "micro_batches": 2 * world.size, "exact": False, "stage": 3}
    for partition in divisors(world.size):
        results = []
        for prefetch in (False, True):
            before = world.ledger.totals()
            got = tiny.trained(world, partition=partition, prefetch=prefetch, **options)
            sent = {link: now - before[link] for link, now in world.ledger.totals().items()}
            results.append((got.digest, sent))
        assert results[0] == results[1], partition


# What lives for a moment: views, requests, pickled numbers of a clipping norm, and the buffers
# of 8192 elements that NumPy takes where it turns one dtype into another.
FEW = 8192 * 8 + 16384


@pytest.mark.once
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("stage, prefetch", [(1, False), (2, False), (3, False), (3, True)])
def test_a_step_allocates_nothing(world, stage, prefetch, exact):
    widths = (160, 300, 160, 300)  # half a unit is longer than FEW
    layers = [nn.Affine(f"a{i}", a, b, seed=1) for i, (a, b) in enumerate(pairwise(widths))]
    net = nn.Sequential(layers[0], nn.Relu(), layers[1], nn.Relu(), layers[2])
    net.plan(8, np.float32)
    x, y = np.ones((8, widths[0]), np.float32), np.arange(8)
    methods = Methods(Sharded(stage, prefetch))
    options = StepOptions(8, microsteps=2, exact=exact, clip=1.0)
    groups = Groups.split(world, Grid.cut(world.size, world.size))
    replica = Replica(net, groups, collectives.get("ring"), optim.make("adam"), methods, options)
    tracemalloc.start()
    try:
        for _ in range(3):  # the last round counts: in the first the interpreter settles
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            replica.step(lambda m: (x, y), lr=1e-3)
            after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        groups.free()
    print(f"net {after - before} bytes, peak {peak - before}")
    assert after - before < 4096 and peak - before < FEW
    assert all(unit.size * 4 > 2 * FEW for unit in replica.context.layout.units)


def test_float_reduction_stays_near_serial_and_replicas_stay_equal(world):
    options = {"steps": 3, "micro_batches": 2 * world.size, "exact": False}
    want = serial(world, **options).parameters
    got = tiny.trained(world, partition=world.size, stage=2, **options)
    assert set(world.allgather_object(got.digest)) == {got.digest}
    for name, value in got.parameters.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-6)
