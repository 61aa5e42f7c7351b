"""The schedules of the hierarchical collectives, and their orders of summation.

``place[i][j]`` is the rank in place (node i, local index j).  Rows of it are the rings inside the
nodes, columns those across, and the index functions of the ring say which chunk travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from refimpl.collectives import tree
from refimpl.collectives.chunks import Call, Ints, between, offsets
from refimpl.collectives.cost import Step
from refimpl.collectives.hierarchical import column, grid, seat
from refimpl.collectives.order import Order, Orders, around, left_to_right
from refimpl.collectives.ring import gathered, reduced, steps_around


def order(place: list[list[int]], node: int, local: int) -> Order:
    """Return the order in which a sum reaches the rank in this place.

    Inside each node round the ring to the local index; then those sums, from the node after
    this one round to it.

    >>> order([[0, 1], [2, 3]], node=0, local=0)
    ((3, 2), (1, 0))
    """
    k = len(place[0])
    inside = [left_to_right([members[j] for j in around(k, local)]) for members in place]
    return left_to_right([inside[i] for i in around(len(place), node)])


def reduce_scatter_orders(call: Call) -> Orders:
    """Return the order of summation of every chunk of the reduce-scatter: `order` at its owner."""
    place = grid(call.nodes)
    return [(part, order(place, *seat(place, chunk))) for chunk, part in enumerate(call.chunks)]


def allreduce_orders(call: Call) -> Orders:
    """Return the order of summation of the all-reduce, part by part.

    The vector is cut into k chunks, one per local index, and each of these into N parts.
    """
    place = grid(call.nodes)
    return [
        (slice(chunk.start + part.start, chunk.start + part.stop), order(place, node, local))
        for local, chunk in enumerate(between(offsets(call.n, len(place[0]))))
        for node, part in enumerate(between(offsets(chunk.stop - chunk.start, len(place))))
    ]


def reduce_order(nodes: tuple[int, ...], root: int = 0) -> Order:
    """Return the order of summation of `reduce`: a tree in each node, then a tree of these sums.

    >>> reduce_order((0, 0, 1, 1), root=3)
    ((3, 2), (1, 0))
    """
    place = grid(nodes)
    node, local = seat(place, root)

    def seated(order: Order, leaves: Sequence[Order]) -> Order:
        if isinstance(order, int):
            return leaves[order]
        return seated(order[0], leaves), seated(order[1], leaves)

    inside = tree.order(len(place[0]), local)
    return seated(tree.order(len(place), node), [seated(inside, members) for members in place])


def reduce_orders(call: Call) -> Orders:
    """Return the order of summation of the whole vector: `reduce_order`."""
    return [(slice(0, call.n), reduce_order(call.nodes, call.root))]


def _turns(
    call: Call, sent: Callable[[int, Ints, int], Ints], adds: bool
) -> tuple[list[Step], list[Step]]:
    """Return the steps (across, within); in each node turns a ring for the chunks of each node."""
    place = np.array(grid(call.nodes))
    rings = np.repeat(place[:, None, :], len(place), axis=1)  # [node, owners' node, local]
    return (
        steps_around(place.T, call.sizes[place.T], sent, adds),
        steps_around(rings, call.sizes[place], sent, adds),
    )


def allgather_steps(call: Call) -> list[Step]:
    """Return the schedule of `hierarchical.allgather`."""
    across, within = _turns(call, gathered, adds=False)
    return across + within


def reduce_scatter_steps(call: Call) -> list[Step]:
    """Return the schedule of `hierarchical.reduce_scatter`."""
    across, within = _turns(call, reduced, adds=True)
    return within + across


def allreduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `hierarchical.allreduce`."""
    place = np.array(grid(call.nodes))
    n_nodes, k = place.shape
    chunk = np.diff(offsets(call.n, k))
    part = np.array([np.diff(offsets(size, n_nodes)) for size in chunk])  # [local, node]
    return [
        *steps_around(place, chunk, reduced, adds=True),
        *steps_around(place.T, part, reduced, adds=True),
        *steps_around(place.T, part, gathered, adds=False),
        *steps_around(place, chunk, gathered, adds=False),
    ]


def broadcast_steps(call: Call) -> list[Step]:
    """Return the schedule of `hierarchical.broadcast`: a tree across, then one in each node."""
    place = grid(call.nodes)
    node, local = seat(place, call.root)
    across = tree.broadcast_steps(Call.of(call.n, (0,) * len(place), node))
    within = tree.broadcast_steps(Call.of(call.n, (0,) * len(place[0]), local))
    peers = column(place, local)
    return [step.among(peers) for step in across] + [step.among(place) for step in within]


def reduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `hierarchical.reduce`: that of the broadcast backwards."""
    return [step.backwards(adds=True) for step in reversed(broadcast_steps(call))]
