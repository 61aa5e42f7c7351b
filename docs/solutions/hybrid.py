"""Solutions to the exercises of docs/hybrid.md."""

import numpy as np

from refimpl import collectives
from refimpl.methods.gradient.gtc import exchange
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid

GRID = Grid.cut(8, gradient=4)


def exercise_1():
    """2 (b - 1)/b 4 P/g bytes of each of 8 ranks: 8 P in all; representatives send 8 P, too."""

    def body(comm):
        groups = Groups.split(comm, GRID)
        part = np.zeros(1000 // 4, np.float32)
        collectives.get("ring").allreduce(groups.block, part)
        return comm.ledger.totals()["inter"].bytes

    assert spawn((0,) * 4 + (1,) * 4, body) == [1000] * 8
    # One pair with the whole vector sends as much between the nodes, over one core and one link.
    whole = collectives.get("ring").cost("allreduce", 1000, (0, 1)).total()["inter"].bytes
    assert whole == 8 * 1000


def exercise_2():
    """Dealt round, neighbours in a group's ring are never on one node: all messages cross."""

    def crossing(nodes):
        messages = [24 + 4 * 10] * 4
        costs = [
            exchange.cost(messages, tuple(nodes[rank] for rank in group))
            for group in GRID.groups("gradient")
        ]
        return sum(cost.total().get("inter", (0, 0))[0] for cost in costs)

    assert crossing((0,) * 4 + (1,) * 4) == 0
    assert crossing((0, 1) * 4) == 2 * 4 * 2 * 3  # groups, ranks, rings, steps
