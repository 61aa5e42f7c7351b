"""The time of a collective that all groups of a grid call at the same moment.

`Collectives.cost` speaks of one group.  In a training step all partition groups gather at once,
and all replication groups reduce at once, and the groups on one node share its link.  So the
groups' schedules are laid side by side: message i of step s of every group is under way together.

A full schedule grows with p^2.  The ring's steps are all alike when the blocks are, and the
hierarchical collectives have two kinds of step, so here such a step is written once, with the
number of times that it is taken; `full`, which lists every step, is what the tests compare with::

    ring            all-gather, reduce-scatter   (p - 1) x (one block to the right)
    hierarchical    all-gather, reduce-scatter   (N - 1) x (one block to the next node's peer)
                                                 (k - 1) x (N blocks to the right in the node)

An all-reduce is a reduce-scatter and an all-gather.  The times are `Cost.time`'s.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives.cost import Cost, Links, Step
from refimpl.collectives.families import HALVING_DOUBLING, HIERARCHICAL, RING
from refimpl.collectives.interface import Collectives

FAMILIES = {family.name: family for family in (RING, HALVING_DOUBLING, HIERARCHICAL)}


class Repeated(NamedTuple):
    """A step, and how often it is taken."""

    step: Step
    times: int


def partition_groups(n: int, p: int) -> NDArray[np.int64]:
    """Return the partition groups of n ranks, one per row.

    >>> partition_groups(4, 2).tolist()
    [[0, 1], [2, 3]]
    """
    return np.arange(n).reshape(-1, p)


def replication_groups(n: int, p: int) -> NDArray[np.int64]:
    """Return the replication groups, one per row: the columns of the partition groups.

    >>> replication_groups(4, 2).tolist()
    [[0, 2], [1, 3]]
    """
    return partition_groups(n, p).T


def two_level(groups: NDArray, nodes: NDArray) -> NDArray | None:
    """Return ``table[group, i, j]``, local rank j on the i-th node of each group.

    None where a group does not lie evenly on its nodes, which hierarchical collectives refuse.

    >>> two_level(partition_groups(8, 4), np.array([0, 0, 1, 1, 2, 2, 3, 3])).tolist()
    [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    """
    where = nodes[groups]
    count = len(set(where[0].tolist()))
    if groups.shape[1] % count:
        return None
    where = where.reshape(len(groups), count, -1)
    alone = (where == where[:, :, :1]).all()
    apart = (np.diff(where[:, :, 0], axis=1) > 0).all()
    return groups.reshape(where.shape) if alone and apart else None


def schedule(
    family: str, operation: str, block: int, groups: NDArray, nodes: NDArray
) -> list[Repeated] | None:
    """Return the steps of one call in every group at once.

    Parameters
    ----------
    family : str
        ``ring``, ``halving-doubling`` or ``hierarchical``.
    operation : str
        ``allgather``, ``reduce_scatter`` or ``allreduce``.
    block : int
        Bytes of one rank's block: the vector has p of them.
    groups : (G, p) array of int
        The ranks of each group; a rank stands in one group.
    nodes : (n,) array of int
        The node of each rank of the world.

    Returns
    -------
    list of Repeated, or None
        In order.  Inside nodes of the hierarchical collectives, where all do the same at the
        same time, the first node stands for all.  None: the family cannot run on these groups.
    """
    if family == "ring":
        return _both(operation, lambda adds: _ring(block, groups, adds))
    if family == "hierarchical":
        table = two_level(groups, nodes)
        if table is None:
            return None
        if operation == "allreduce":
            return _hierarchical_allreduce(block, table)
        return _hierarchical(block, table, adds=operation == "reduce_scatter")
    return [Repeated(step, 1) for step in full(family, operation, block, groups, nodes)]


def _both(operation: str, steps) -> list[Repeated]:
    """Return the steps of an operation whose all-reduce is a reduce-scatter and an all-gather."""
    return {
        "allgather": lambda: steps(False),
        "reduce_scatter": lambda: steps(True),
        "allreduce": lambda: steps(True) + steps(False),
    }[operation]()


def _ring(block: int, groups: NDArray, adds: bool) -> list[Repeated]:
    to_the_right = Step.of(groups, np.roll(groups, -1, axis=1), block, adds)
    return [Repeated(to_the_right, groups.shape[1] - 1)]


def _across(block: int, table: NDArray, adds: bool) -> Repeated:
    """Return the step in which each rank sends a block to its peer on the next node."""
    peer = np.roll(table, -1, axis=1)
    return Repeated(Step.of(table, peer, block, adds), table.shape[1] - 1)


def _within(block: int, messages: int, table: NDArray, adds: bool) -> Repeated:
    """Return the step in which each rank of a node sends some blocks to its right neighbour."""
    node = table[0, 0]
    source = np.tile(node, (messages, 1))
    return Repeated(Step.of(source, np.roll(source, -1, axis=1), block, adds), table.shape[2] - 1)


def _hierarchical(block: int, table: NDArray, adds: bool) -> list[Repeated]:
    across, within = _across(block, table, adds), _within(block, table.shape[1], table, adds)
    return [within, across] if adds else [across, within]


def _hierarchical_allreduce(block: int, table: NDArray) -> list[Repeated]:
    """Within: k blocks of N parts each, one message; across: one part.  A part is a block here."""
    n_nodes = table.shape[1]
    within = [_within(block * n_nodes, 1, table, adds) for adds in (True, False)]
    across = [_across(block, table, adds) for adds in (True, False)]
    return [within[0], *across, within[1]]


def full(family: str, operation: str, block: int, groups: NDArray, nodes: NDArray) -> list[Step]:
    """Return every step of one call in every group at once, from the family's own schedules."""
    p = groups.shape[1]
    chosen: Collectives = FAMILIES[family]
    local = chosen.cost(operation, p * block, tuple(nodes[groups[0]].tolist()), itemsize=1)
    return [
        Step.of(groups[:, s.source], groups[:, s.dest], s.elements, s.adds)
        for s in local.steps
        for _ in range(s.times)
    ]


def seconds(steps: list[Repeated], nodes: NDArray, links: Links) -> float:
    """Return the time of these steps, one after the other."""
    where = tuple(nodes.tolist())
    return sum(
        times * Cost([step], where, itemsize=1).time(links) for step, times in steps if times
    )
