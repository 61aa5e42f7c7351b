"""The state of a run: named values, each with its placement.

What a run depends on is a tree, flat in form: a path such as ``gradient/residual`` names a leaf,
an array or a plain value.  What a rank holds of it says its *placement*::

    whole    equal on all ranks                                 a counter, the learning rate
    shard    this rank's shard of one vector                    W and D of BMUF
    block    a shard, of a vector that every block has          parameters, momentum
    own      a shard, of a vector that every worker has         GTC's residual
    chunk    this rank's chunk of the gradient group's shard    what an owner of one bit owes
    part     this rank's part of a sum over all, a list         losses, bytes sent, of an epoch

Arrays that are not ``whole`` are vectors, cut and padded as `refimpl.nn.flat.Layout` says; so
from the shards of a partition group the shards of any other group follow (`recut`).  A value that
is no vector and not ``whole`` is each block's (a threshold of GTC that adapts), or the rank's own
(what its guard has counted of this shard).

The arrays of a tree are those that the run works with.  Whoever wants to go back to them later
takes copies (`copied`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refimpl.nn.flat import Layout

PLACEMENTS = ("whole", "shard", "block", "own", "chunk", "part")


class Leaf(NamedTuple):
    """A value and its placement."""

    value: Any
    placement: str = "whole"


Tree = dict[str, Leaf]


def under(name: str, tree: Mapping[str, Leaf]) -> Tree:
    """Return the tree as a branch.

    >>> under("gradient", {"tau": Leaf(8.0)})
    {'gradient/tau': Leaf(value=8.0, placement='whole')}
    """
    return {f"{name}/{path}": leaf for path, leaf in tree.items()}


def branch(tree: Mapping[str, Leaf], name: str) -> Tree:
    """Return a branch as a tree: the inverse of `under`.

    >>> branch({"gradient/tau": Leaf(8.0), "step": Leaf(3)}, "gradient")
    {'tau': Leaf(value=8.0, placement='whole')}
    """
    start = f"{name}/"
    return {path[len(start) :]: leaf for path, leaf in tree.items() if path.startswith(start)}


def whole(values: Mapping[str, Any]) -> Tree:
    """Return a tree of values that are equal on all ranks."""
    return {name: Leaf(value) for name, value in values.items()}


def plain(tree: Mapping[str, Leaf]) -> dict[str, Any]:
    """Return the values of a tree by name: the inverse of `whole`."""
    return {path: leaf.value for path, leaf in tree.items()}


def copied(tree: Mapping[str, Leaf]) -> Tree:
    """Return the tree with copies of its arrays."""
    return {path: leaf._replace(value=_copy(leaf.value)) for path, leaf in tree.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return list(value) if isinstance(value, list) else value


def nbytes(tree: Mapping[str, Leaf]) -> int:
    """Return the bytes of the tree's arrays."""
    return sum(leaf.value.nbytes for leaf in tree.values() if isinstance(leaf.value, np.ndarray))


def recut(new: Layout, rank: int, old: Layout, shards: Sequence[np.ndarray]) -> np.ndarray:
    """Return the shard (shard,) of a rank in layout ``new``, of the vector with these shards.

    ``shards``: those of ranks 0 .. p-1 in layout ``old``, of the same units; only what is needed
    of them is read.  Padding is zero.

    >>> from refimpl.nn.flat import one_unit
    >>> whole, two, three = (one_unit(5, partition=p) for p in (1, 2, 3))
    >>> [recut(two, rank, whole, [np.arange(1, 6)]).tolist() for rank in range(2)]
    [[1, 2, 3], [4, 5, 0]]
    >>> recut(three, 1, two, [np.array([1, 2, 3]), np.array([4, 5, 0])]).tolist()
    [3, 4]
    """
    shard = np.zeros(new.shard, shards[0].dtype)
    for unit, was in zip(new.units, old.units, strict=True):
        place, end = rank * unit.piece, min((rank + 1) * unit.piece, unit.size)
        while place < end:  # one piece of the old cut after the other
            source, start = divmod(place, was.piece)
            count = min(end - place, was.piece - start)
            there = was.shard_place.start + start
            here = unit.shard_place.start + place - rank * unit.piece
            shard[here : here + count] = shards[source][there : there + count]
            place += count
    return shard
