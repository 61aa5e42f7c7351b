"""Solutions to the exercises of docs/hpz.md."""

import numpy as np

from refimpl import collectives, nn, optim
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import strategy
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn


def exercise_1():
    """Rank r owns the r-th of four parts of the unit, and keeps the (r mod k)-th of two."""
    unit, p, k = np.arange(8), 4, 2
    shards, kept = np.split(unit, p), [np.split(unit, k)[rank % k] for rank in range(p)]
    assert [len(part) for part in kept] == [len(unit) // k] * p
    for node in (0, 1):  # what a node keeps is whole, without what the other node has
        assert np.array_equal(np.concatenate(kept[k * node : k * node + k]), unit)
    # Ranks 0 and 3 have their shard among it already; 1 and 2 keep what others own.
    had = [rank for rank in range(p) if set(shards[rank]) <= set(kept[rank])]
    assert had == [0, 3]


def crossed(given):
    """Return the bytes between two nodes of two ranks in a step of zero3 with these options."""

    def body(comm):
        network = nn.Sequential(nn.Affine("a", 6, 5, 0), nn.Relu(), nn.Affine("b", 5, 3, 0))
        network.plan(4, "float32")
        row = strategy("zero3")
        groups, ring = Groups.split(comm, row.grid(comm.size)), collectives.get("ring")
        options = StepOptions(batch=4, microsteps=3)
        replica = Replica(network, groups, ring, optim.make("sgd"), row.choose(given), options)
        x = np.ones((4, 6), "float32")
        replica.step(lambda microstep: (x, np.arange(4) % 3), lr=0.1)
        return comm.ledger.totals()["inter"].bytes

    return sum(spawn((0, 0, 1, 1), body))


def exercise_2():
    """Of two gathers and one reduce-scatter in a micro-step the second gather stays inside."""
    padded, p, s = 36 + 20, 4, 3  # 35 and 18 values, padded to multiples of p
    edge = 4 * padded * (p - 1) // p
    assert crossed({}) == 2 * s * 3 * edge  # two of the ring's edges cross
    assert crossed({"secondary_shards": "node"}) == 2 * s * 2 * edge
