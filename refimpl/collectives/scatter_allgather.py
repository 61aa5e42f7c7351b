"""Broadcast of long vectors: a scatter down the tree, then an all-gather round the ring.

The root does not send the vector, which every node of a tree would have to pass on whole, but cuts
it into p chunks.  Node v of the binomial tree (`tree`; v = (rank - root) mod p) gets those of its
subtree, v, v + 1, ..., which are neighbours, and keeps chunk v; then the chunks go round.  Every
rank sends about two vectors, however many ranks there are.

The algorithm of van de Geijn; Thakur, Rabenseifner and Gropp (2005).
"""

from __future__ import annotations

import numpy as np

from refimpl.collectives import chunks, ring, tree
from refimpl.collectives.chunks import Array, Call
from refimpl.collectives.cost import Step
from refimpl.world.communicator import Communicator


def end(p: int, v: int) -> int:
    """Return the end of the subtree of node v, whose nodes are v, v + 1, ..., end - 1.

    >>> [end(7, v) for v in range(7)]
    [7, 2, 4, 4, 7, 6, 7]
    """
    return min(p, v + ((v & -v) or p))


def broadcast(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace x by the root's, in place; x (n,) of any dtype.

    For p = 4, the chunks that node v sends in the scatter, and to whom::

        step      v=0    v=1  v=2    v=3
           0  2,3->v2      -    -      -
           1    1->v1      -  3->v3    -

    Cost of the root: ceil(log2 p) + p - 1 messages; of all ranks: at most 2 n (p - 1)/p elements,
    where p divides n.  T = (ceil(log2 p) + p - 1) alpha + 2 V (p - 1)/p beta.
    """
    p, v = comm.size, (comm.rank - root) % comm.size
    chunk = chunks.slices(x, p)
    if v > 0:
        comm.Recv(_subtree(x, chunk, v), source=(tree.parent(v) + root) % p)
    for child in reversed(tree.children(p, v)):
        comm.Send(_subtree(x, chunk, child), dest=(child + root) % p)
    ring.go_round(comm, x, chunk, v)


def _subtree(x: Array, chunk: list[slice], v: int) -> Array:
    """Return the chunks of the subtree of v, which are neighbours, as one view."""
    return x[chunk[v].start : chunk[end(len(chunk), v) - 1].stop]


def broadcast_steps(call: Call) -> list[Step]:
    """Return the schedule of `broadcast`."""
    p, points = call.p, np.cumsum([0, *call.sizes])
    subtree = np.array([points[end(p, v)] - points[v] for v in range(p)])
    scatter = [
        step._replace(elements=subtree[(step.dest - call.root) % p])
        for step in tree.broadcast_steps(call)
    ]
    circle = (np.arange(p) + call.root) % p
    return scatter + ring.steps_around(circle, call.sizes, ring.gathered, adds=False)
