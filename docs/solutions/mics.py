"""Solutions to the exercises of docs/mics.md."""

import numpy as np

from refimpl import collectives, nn, optim
from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import strategy
from refimpl.numerics.rng import stream
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid


def between(p):
    """Return the bytes between nodes of a step, of one micro-step, of 8 ranks on two nodes."""
    grid, nodes, ring = Grid.cut(8, partition=p), (0, 0, 0, 0, 1, 1, 1, 1), collectives.get("ring")
    padded = -(-781_884 // p) * p
    calls = [("partition", "allgather", padded)] * 2
    calls += [("partition", "reduce_scatter", padded), ("gradient", "allreduce", padded // p)]
    costs = [ring.cost_of_groups(call, n, grid.groups(axis), nodes) for axis, call, n in calls]
    return sum(cost.total()["inter"].bytes for cost in costs if "inter" in cost.total())


def exercise_1():
    """p = 4, a node: hop 2 is a ring of two about a quarter, where p = 2 has one of four."""
    kept = {p: 3 * 4 * 781_884 / p for p in (1, 2, 4, 8)}  # V (1 + 1 + m) / p
    sent = {p: between(p) for p in kept if kept[p] <= 6_000_000}
    assert sent == {2: 9_382_608, 4: 6_255_072, 8: 16_419_648}  # 3 V, 2 V, 3 V 7/8 on two edges


def messages(microsteps):
    """Return what two ranks of zero3 send in a step of a network of two units."""

    def body(comm):
        network = nn.Sequential(nn.Affine("a", 6, 5, 0), nn.Relu(), nn.Affine("b", 5, 3, 0))
        network.plan(4, "float32")
        row = strategy("zero3")
        groups, ring = Groups.split(comm, row.grid(comm.size)), collectives.get("ring")
        options = StepOptions(batch=4, microsteps=microsteps)
        replica = Replica(network, groups, ring, optim.make("sgd"), row.choose({}), options)
        x = stream(0, "x", comm.rank).normal(size=(4, 6)).astype("float32")
        replica.step(lambda microstep: (x, np.arange(4) % 3), lr=0.1)
        return {
            purpose: counts["intra"].messages
            for purpose, counts in comm.ledger.by_purpose().items()
        }

    return spawn((0, 0), body)[0]


def exercise_2():
    """2 s all-gathers and s reduce-scatters of each of two units, p - 1 = 1 message each."""
    for s in (1, 3):
        assert messages(s) == {"parameters": 2 * s * 2, "gradients": s * 2}


def exercise_3():
    """Every replica would count: a norm sqrt(R) times too long clips what need not be clipped."""

    def body(comm):
        groups = Groups.split(comm, Grid.cut(8, partition=2))
        shard = np.array([3.0, 4.0][comm.rank % 2 :][:1])  # of the gradient (3, 4)
        return GlobalNorm()(groups.partition, shard), GlobalNorm()(comm, shard)

    assert spawn((0,) * 8, body) == [(5.0, 10.0)] * 8  # R = 4
