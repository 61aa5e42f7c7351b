"""The mean of the groups' models, and what it sends: all methods of the block axis begin with it.

Every member of a gradient group carries a part of the shard: those with the same place in their
groups sum up their part, and inside each group the parts of the *mean* are gathered.  Equal
numbers are then on all ranks with this shard, so every one can do by itself what is done with the
mean.  (One representative of each group would send all of it, g times as much, and broadcast it.)

A part has a share of every piece of the vector that is added in an order of its own, so that every
value is added in the same order as in an all-reduce of the whole: the bits do not depend on g.
Float sums by ``auto`` are another matter, as it picks for a part's own length, and by ``native``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from refimpl.collectives import Collectives, chunks, small
from refimpl.methods import dense
from refimpl.methods.calls import Call, Setting
from refimpl.methods.options import least, option
from refimpl.methods.protocol import Context
from refimpl.world.communicator import Communicator


def steps_option() -> Any:
    """Return the option of a block's length: one flag for all methods."""
    return option("--block-steps", 50, "local steps of a block", least(1))


def warm_start_option() -> Any:
    """Return the option of a warm start: one flag for all methods."""
    return option(
        "--warm-start",
        0,
        "steps that all groups take together first, with exact sums (default: 0)",
        least(0),
        metavar="STEPS",
    )


def parts(
    collectives: Collectives, n: int, nodes: tuple[int, ...], members: int, itemsize: int = 4
) -> list[list[slice]]:
    """Return what each member of a group carries of n values that are summed on these nodes.

    >>> from refimpl.collectives import get
    >>> parts(get("tree"), 7, nodes=(0, 1), members=2)
    [[slice(0, 4, None)], [slice(4, 7, None)]]
    >>> parts(get("ring"), 7, nodes=(0, 1), members=2)
    [[slice(0, 2, None), slice(4, 6, None)], [slice(2, 4, None), slice(6, 7, None)]]
    """
    family, pieces = collectives.family("allreduce", n, nodes, itemsize), [slice(0, n)]
    if members > 1 and family.refuses("allreduce", nodes) is None:
        orders = family.algorithms["allreduce"].orders
        if orders is not None:
            pieces = [piece for piece, _ in orders(chunks.Call.of(n, nodes))]
    return [
        [
            slice(piece.start + share.start, piece.start + share.stop)
            for piece in pieces
            for share in [chunks.between(chunks.offsets(piece.stop - piece.start, members))[m]]
        ]
        for m in range(members)
    ]


def cut(carried: list[list[slice]]) -> list[int]:
    """Return where the members' parts, laid end to end, meet.

    >>> cut([[slice(0, 2), slice(4, 6)], [slice(2, 4), slice(6, 7)]])
    [0, 4, 7]
    """
    sizes = (sum(share.stop - share.start for share in shares) for shares in carried)
    return list(accumulate(sizes, initial=0))


class Mean:
    """Averages models on one rank; ``models``: how many."""

    def __init__(self, context: Context) -> None:
        groups = context.groups
        self.block, self.group = groups.block, groups.gradient
        self.collectives = context.collectives
        self.fixed = context.fixed(self.block.size, "the model")
        self.models = self.block.size
        first = groups.grid.place(groups.world.rank)._replace(member=0)
        self.nodes = tuple(
            groups.world.nodes[rank] for rank in groups.grid.block_group(groups.grid.rank(*first))
        )

    def __call__(self, weights: np.ndarray, factor: float = 1.0) -> None:
        """Replace weights (shard,) by the mean over the groups, the same bits on all ranks.

        Collective over all ranks with this shard.  The sum over groups (order of summation: the
        collective's; none with ``--reduction exact``), divided by b.  Cost: `calls`.  ``factor``:
        what this group's model counts, 1 on average; it is multiplied before it is added.
        """
        with self.block.purpose("models"):
            if self.group.size == 1:
                self._mean(weights, factor)
                return
            members, n = self.group.size, weights.size
            itemsize = 8 if self.fixed else weights.itemsize
            carried = parts(self.collectives, n, self.nodes, members, itemsize)
            points = cut(carried)
            run = self.group.scratch(n, weights.dtype, slot=1)  # the parts end to end
            mine = run[points[self.group.rank] : points[self.group.rank + 1]]
            np.concatenate([weights[share] for share in carried[self.group.rank]], out=mine)
            self._mean(mine, factor)
            self.collectives.allgather(self.group, run, points)
            start = 0
            for share in (share for shares in carried for share in shares):
                weights[share] = run[start : start + share.stop - share.start]
                start += share.stop - share.start

    def _mean(self, x: np.ndarray, factor: float) -> None:
        """Replace x by its mean over the block group."""
        if factor != 1:
            x *= x.dtype.type(factor)
        dense.allreduce(self.block, self.collectives, x, self.fixed)
        x /= self.models


def factor_of(comm: Communicator, frames: int) -> float:
    """Return what a model counts in a mean over the frames of all: b f / F, 1 on average.

    f are this rank's ``frames``, F those of all b ranks; if these are alike, or nobody has any,
    it is 1 exactly.  Collective.  Cost: `factor_calls`.
    """
    total = int(small.gathered(comm, [frames]).sum())
    return comm.size * frames / total if total else 1.0


def factor_calls(setting: Setting) -> Iterator[Call]:
    """Yield what all ranks send for `factor_of`: one number in every block group."""
    for group in setting.talking("block"):
        one = small.cost(1, setting.nodes.nodes_of(group))
        yield Call(setting, "block", group, "control", own=one)


def calls(setting: Setting, values: int | None = None) -> Iterator[Call]:
    """Yield what all ranks send for a mean of so many values of a shard; by default of all.

    One all-reduce of every part among the b ranks that carry it, one all-gather of the parts in
    every gradient group.
    """
    n, grid = setting.layout.shard if values is None else values, setting.grid
    carried = {
        shard: parts(
            setting.collectives,
            n,
            setting.nodes.nodes_of(grid.block_group(shard)),
            grid.gradient,
            setting.summed,
        )
        for shard in range(grid.partition)
    }
    for group in setting.talking("block"):
        _, member, shard = grid.place(group[0])
        points = cut(carried[shard])
        own = points[member + 1] - points[member]
        yield Call(setting, "block", group, "models", "allreduce", own, setting.summed)
    for group in setting.talking("gradient"):
        points = cut(carried[grid.place(group[0]).shard])
        one = Call(setting, "gradient", group, "models", "allgather", n, setting.itemsize)
        yield replace(one, offsets=tuple(points))
