"""The schedules of the hierarchical collectives: every message, stage by stage.

``table[i, j]`` is the rank in place (node i, local index j); the index functions of the ring say
which chunk travels, along the nodes or along the local indices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import chunks, tree
from refimpl.collectives.cost import Step
from refimpl.collectives.hierarchical import column, grid, seat
from refimpl.collectives.ring import gathered, reduced


def allgather_steps(sizes: NDArray, nodes: tuple[int, ...]) -> list[Step]:
    """Return the schedule of `hierarchical.allgather`, chunks of ``sizes`` elements."""
    table = np.array(grid(nodes))
    n_nodes, k = table.shape
    i, j = np.arange(n_nodes)[:, None], np.arange(k)
    steps = []
    for s in range(n_nodes - 1):
        sent = table[gathered(n_nodes, i, s), j]
        steps.append(Step.of(table, table[(i + 1) % n_nodes, j], sizes[sent]))
    for s in range(k - 1):
        sent = table[:, gathered(k, j, s)]  # [owner's node, sender's local index]
        steps.append(
            Step.of(table[:, None, :], table[:, None, (j + 1) % k], sizes[sent][None, :, :])
        )
    return steps


def reduce_scatter_steps(sizes: NDArray, nodes: tuple[int, ...]) -> list[Step]:
    """Return the schedule of `hierarchical.reduce_scatter`, chunks of ``sizes`` elements."""
    table = np.array(grid(nodes))
    n_nodes, k = table.shape
    i, j = np.arange(n_nodes)[:, None], np.arange(k)
    steps = []
    for s in range(k - 1):
        sent = table[:, reduced(k, j, s)]
        to = table[:, None, (j + 1) % k]
        steps.append(Step.of(table[:, None, :], to, sizes[sent][None, :, :], adds=True))
    for s in range(n_nodes - 1):
        sent = table[reduced(n_nodes, i, s), j]
        steps.append(Step.of(table, table[(i + 1) % n_nodes, j], sizes[sent], adds=True))
    return steps


def allreduce_steps(n: int, nodes: tuple[int, ...]) -> list[Step]:
    """Return the schedule of `hierarchical.allreduce`."""
    table = np.array(grid(nodes))
    n_nodes, k = table.shape
    chunk = np.diff(chunks.offsets(n, k))
    part = np.array([np.diff(chunks.offsets(size, n_nodes)) for size in chunk])  # [local, node]
    i, j = np.arange(n_nodes)[:, None], np.arange(k)

    right, down = table[:, (j + 1) % k], table[(i + 1) % n_nodes, j]
    reduce_within = [
        Step.of(table, right, chunk[reduced(k, j, s)], adds=True) for s in range(k - 1)
    ]
    reduce_across = [
        Step.of(table, down, part[j, reduced(n_nodes, i, s)], adds=True)
        for s in range(n_nodes - 1)
    ]
    gather_across = [
        Step.of(table, down, part[j, gathered(n_nodes, i, s)]) for s in range(n_nodes - 1)
    ]
    gather_within = [Step.of(table, right, chunk[gathered(k, j, s)]) for s in range(k - 1)]
    return reduce_within + reduce_across + gather_across + gather_within


def broadcast_steps(n: int, nodes: tuple[int, ...], root: int = 0) -> list[Step]:
    """Return the schedule of `hierarchical.broadcast`."""
    place = grid(nodes)
    node, local = seat(place, root)
    peers = np.array(column(place, local))
    across = [
        Step.of(peers[s.source], peers[s.dest], n)
        for s in tree.broadcast_steps(n, len(place), node)
    ]
    table = np.array(place)
    within = [
        Step.of(table[:, s.source], table[:, s.dest], n)
        for s in tree.broadcast_steps(n, len(place[0]), local)
    ]
    return across + within


def reduce_steps(n: int, nodes: tuple[int, ...], root: int = 0) -> list[Step]:
    """Return the schedule of `hierarchical.reduce`: that of the broadcast backwards."""
    steps = reversed(broadcast_steps(n, nodes, root))
    return [Step.of(s.dest, s.source, s.elements, adds=True) for s in steps]
