"""The state of a run: named values, each with its placement.

What a run depends on is a tree, flat in form: a path such as ``gradient/residual`` names a leaf,
an array or a plain value.  What a rank holds of it says its *placement*::

    whole    equal on all ranks                                 a counter, the learning rate
    shard    this rank's shard of one vector                    W and D of BMUF
    block    a shard, of a vector that every block has          parameters, momentum
    own      a shard, of a vector that every worker has         GTC's residual
    chunk    this rank's chunk of the gradient group's shard    what an owner of one bit owes

A value that is no vector and not ``whole`` is each block's (a threshold of GTC that adapts), or
the rank's own (what its guard has counted of this shard).

A shard is cut and padded as `refimpl.nn.flat.Layout` says; so from the shards of a partition
group the whole vector follows (`join`), and from it the shards of any other group (`cut`).

The arrays of a tree are those that the run works with.  Whoever wants to go back to them later
takes copies (`copied`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from refimpl.nn.flat import Layout

PLACEMENTS = ("whole", "shard", "block", "own", "chunk")


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


def cut(layout: Layout, vector: np.ndarray, rank: int) -> np.ndarray:
    """Return the shard (shard,) of rank ``rank`` of a vector without padding (size,).

    >>> from refimpl.nn.flat import one_unit
    >>> [cut(one_unit(5, partition=2), np.arange(1, 6), rank).tolist() for rank in range(2)]
    [[1, 2, 3], [4, 5, 0]]
    """
    shard = np.zeros(layout.shard, vector.dtype)
    for start, unit in zip(_starts(layout), layout.units, strict=True):
        piece = vector[start : start + unit.size][rank * unit.piece :][: unit.piece]
        shard[unit.shard_place][: piece.size] = piece
    return shard


def join(layout: Layout, shards: Sequence[np.ndarray]) -> np.ndarray:
    """Return the vector without padding (size,) of the shards of ranks 0 .. p-1: undo `cut`."""
    vector = np.zeros(layout.size, shards[0].dtype)
    for start, unit in zip(_starts(layout), layout.units, strict=True):
        pieces = np.concatenate([shard[unit.shard_place] for shard in shards])
        vector[start : start + unit.size] = pieces[: unit.size]
    return vector


def _starts(layout: Layout) -> list[int]:
    """Return where each unit begins in a vector without padding."""
    return list(accumulate((unit.size for unit in layout.units), initial=0))[:-1]
