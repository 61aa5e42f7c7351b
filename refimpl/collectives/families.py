"""The families of collectives, assembled from the algorithms; the table is one level up.

A new one is an entry here, in `EXPLICIT`: whatever lists, counts, predicts or tests families then
knows it.
"""

from __future__ import annotations

from refimpl.collectives import (
    halving_doubling,
    hierarchical,
    hierarchical_steps,
    native,
    ring,
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

NATIVE = Family(
    "native",
    {
        "allgather": Algorithm(native.allgather),
        "reduce_scatter": Algorithm(native.reduce_scatter),
        "allreduce": Algorithm(native.allreduce),
        "broadcast": Algorithm(native.broadcast),
        "reduce": Algorithm(native.reduce),
    },
)

# The families whose messages are written out, in the order in which ties are decided.
EXPLICIT = (RING, HALVING_DOUBLING, TREE, HIERARCHICAL)
