"""The families of collectives, assembled from the algorithms; the table is one level up.

A new one is an entry here, in `EXPLICIT`: whatever lists, counts, predicts or tests families then
knows it.
"""

from __future__ import annotations

from refimpl.collectives import (
    bruck,
    chain,
    halving_doubling,
    hierarchical,
    hierarchical_steps,
    native,
    pairwise,
    recursive_doubling,
    ring,
    scatter_allgather,
    tree,
)
from refimpl.collectives.interface import Algorithm, Family

TREE = Family(
    "tree",
    {
        "allreduce": Algorithm(tree.allreduce, tree.allreduce_steps, tree.orders),
        "broadcast": Algorithm(tree.broadcast, tree.broadcast_steps),
        "reduce": Algorithm(tree.reduce, tree.reduce_steps, tree.orders),
    },
)

RING = Family(
    "ring",
    TREE.algorithms
    | {
        "allgather": Algorithm(ring.allgather, ring.allgather_steps),
        "reduce_scatter": Algorithm(ring.reduce_scatter, ring.reduce_scatter_steps, ring.orders),
        "allreduce": Algorithm(ring.allreduce, ring.allreduce_steps, ring.orders),
    },
    ahead=ring.allgather_ahead,
)

HALVING_DOUBLING = Family(
    "halving-doubling",
    TREE.algorithms
    | {
        "allgather": Algorithm(halving_doubling.allgather, halving_doubling.allgather_steps),
        "reduce_scatter": Algorithm(
            halving_doubling.reduce_scatter,
            halving_doubling.reduce_scatter_steps,
            halving_doubling.orders,
        ),
        "allreduce": Algorithm(
            halving_doubling.allreduce, halving_doubling.allreduce_steps, halving_doubling.orders
        ),
    },
)

HIERARCHICAL = Family(
    "hierarchical",
    {
        "allgather": Algorithm(hierarchical.allgather, hierarchical_steps.allgather_steps),
        "reduce_scatter": Algorithm(
            hierarchical.reduce_scatter,
            hierarchical_steps.reduce_scatter_steps,
            hierarchical_steps.reduce_scatter_orders,
        ),
        "allreduce": Algorithm(
            hierarchical.allreduce,
            hierarchical_steps.allreduce_steps,
            hierarchical_steps.allreduce_orders,
        ),
        "broadcast": Algorithm(hierarchical.broadcast, hierarchical_steps.broadcast_steps),
        "reduce": Algorithm(
            hierarchical.reduce, hierarchical_steps.reduce_steps, hierarchical_steps.reduce_orders
        ),
    },
    unfit=hierarchical.uneven,
)

RECURSIVE_DOUBLING = Family(
    "recursive-doubling",
    TREE.algorithms
    | {
        "allreduce": Algorithm(
            recursive_doubling.allreduce,
            recursive_doubling.allreduce_steps,
            recursive_doubling.orders,
        ),
    },
)

BRUCK = Family("bruck", {"allgather": Algorithm(bruck.allgather, bruck.allgather_steps)})

SCATTER_ALLGATHER = Family(
    "scatter-allgather",
    {"broadcast": Algorithm(scatter_allgather.broadcast, scatter_allgather.broadcast_steps)},
)

CHAIN = Family("chain", {"broadcast": Algorithm(chain.broadcast, chain.broadcast_steps)})

PAIRWISE = Family("pairwise", {"alltoall": Algorithm(pairwise.alltoall, pairwise.alltoall_steps)})

NATIVE = Family(
    "native",
    {
        "allgather": Algorithm(native.allgather),
        "reduce_scatter": Algorithm(native.reduce_scatter),
        "allreduce": Algorithm(native.allreduce),
        "broadcast": Algorithm(native.broadcast),
        "reduce": Algorithm(native.reduce),
        "alltoall": Algorithm(native.alltoall),
    },
)

# The families whose messages are written out, in the order in which ties are decided.
EXPLICIT = (
    RING,
    HALVING_DOUBLING,
    TREE,
    HIERARCHICAL,
    RECURSIVE_DOUBLING,
    BRUCK,
    SCATTER_ALLGATHER,
    CHAIN,
    PAIRWISE,
)


def able(operation: str, nodes: tuple[int, ...]) -> list[Family]:
    """Return the explicit families that can do it on these nodes; what is the tree's, by the tree.

    >>> [family.name for family in able("broadcast", nodes=(0, 0, 1))]
    ['tree', 'scatter-allgather', 'chain']
    """
    trees = TREE.algorithms.get(operation)
    return [
        family
        for family in EXPLICIT
        if family.refuses(operation, nodes) is None
        and (family is TREE or family.algorithms[operation] is not trees)
    ]
