"""The families of collectives, assembled from the algorithms; the table is one level up."""

from __future__ import annotations

from refimpl.collectives import (
    halving_doubling,
    hierarchical,
    hierarchical_steps,
    native,
    ring,
    tree,
)
from refimpl.collectives.interface import Collectives, missing

# Schedules are called with keywords n, sizes (of the p chunks), nodes (of the p ranks) and root.
_TREE = {
    "broadcast": lambda n, nodes, root, **_: tree.broadcast_steps(n, len(nodes), root),
    "reduce": lambda n, nodes, root, **_: tree.reduce_steps(n, len(nodes), root),
}

RING = Collectives(
    "ring",
    ring.allgather,
    ring.reduce_scatter,
    ring.allreduce,
    tree.broadcast,
    tree.reduce,
    _TREE
    | {
        "allgather": lambda sizes, **_: ring.allgather_steps(sizes),
        "reduce_scatter": lambda sizes, **_: ring.reduce_scatter_steps(sizes),
        "allreduce": lambda sizes, **_: ring.allreduce_steps(sizes),
    },
)

HALVING_DOUBLING = Collectives(
    "halving-doubling",
    halving_doubling.allgather,
    halving_doubling.reduce_scatter,
    halving_doubling.allreduce,
    tree.broadcast,
    tree.reduce,
    _TREE
    | {
        "allgather": lambda sizes, **_: halving_doubling.allgather_steps(sizes),
        "reduce_scatter": lambda sizes, **_: halving_doubling.reduce_scatter_steps(sizes),
        "allreduce": lambda sizes, **_: halving_doubling.allreduce_steps(sizes),
    },
)

TREE = Collectives(
    "tree",
    missing("tree", "all-gather", "ring, halving-doubling or auto"),
    missing("tree", "reduce-scatter", "ring, halving-doubling or auto"),
    tree.allreduce,
    tree.broadcast,
    tree.reduce,
    _TREE | {"allreduce": lambda n, nodes, **_: tree.allreduce_steps(n, len(nodes))},
)

HIERARCHICAL = Collectives(
    "hierarchical",
    hierarchical.allgather,
    hierarchical.reduce_scatter,
    hierarchical.allreduce,
    hierarchical.broadcast,
    hierarchical.reduce,
    {
        "allgather": lambda sizes, nodes, **_: hierarchical_steps.allgather_steps(sizes, nodes),
        "reduce_scatter": lambda sizes, nodes, **_: hierarchical_steps.reduce_scatter_steps(
            sizes, nodes
        ),
        "allreduce": lambda n, nodes, **_: hierarchical_steps.allreduce_steps(n, nodes),
        "broadcast": lambda n, nodes, root, **_: hierarchical_steps.broadcast_steps(
            n, nodes, root
        ),
        "reduce": lambda n, nodes, root, **_: hierarchical_steps.reduce_steps(n, nodes, root),
    },
)

NATIVE = Collectives(
    "native",
    native.allgather,
    native.reduce_scatter,
    native.allreduce,
    native.broadcast,
    native.reduce,
)

# The families whose messages are written out, in the order in which ties are decided.
EXPLICIT = (RING, HALVING_DOUBLING, TREE, HIERARCHICAL)
