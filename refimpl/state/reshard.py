"""A checkpoint on ranks of another grid: which rank takes what of it.

On the same grid every rank takes what it wrote, or what the first rank with the same wrote.  On
another::

    whole    as it is
    shard    cut anew (`tree.recut`)
    block    the same block's, cut anew; with another number of blocks they must be equal, as they
             are between two blocks
    own      of W workers' vectors, W' are made: worker w's goes to worker floor(w W' / W), sums
             are taken in float64, rounded once, and what the rounding left is the next worker's:
             what all of them owe together stays, to the bit where floats can hold it
    chunk    what a block's owners owe, joined, cut anew, and into chunks anew; of several blocks
             that become one, the sum
    part     the first rank has the sum

A value that is no vector is that of the block that it comes from, and one that is a rank's own
(what a guard has counted) begins anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.collectives import chunks
from refimpl.nn.flat import Layout
from refimpl.state.checkpoint import Saved, speaker
from refimpl.state.tree import Leaf, Tree, recut
from refimpl.support.errors import UserError, listed, require
from refimpl.world.topology import Grid, Place


def fitted(saved: Saved, state: Tree, grid: Grid, rank: int, layout: Layout) -> Tree:
    """Return what a state that was saved holds for this rank.

    ``state``: the new run's tree, which tells names, placements and dtypes.  ``layout``: of its
    shards.

    Raises
    ------
    UserError
        If the checkpoint has other leaves, or cannot be meant for this grid; on all ranks where
        it is one of names or of blocks.
    """
    theirs = saved.placements()
    for names, text in (
        (state.keys() - theirs, "the checkpoint has no {}, which this run needs"),
        (theirs.keys() - state, "the checkpoint's {} would be lost: this run has no place for it"),
    ):
        shown = {name for name in names if "/saved/" not in name} or names
        require(
            not names,
            f"{saved.name}: {text.format(listed(shown))}: resume with the same methods, on more "
            "than one block if there were several",
        )
    require(
        _shapes(saved.layout) == _shapes(layout), f"{saved.name} is of another network's units"
    )
    return {
        path: Leaf(_Fitting(saved, path, leaf, grid, rank, layout).value(), leaf.placement)
        for path, leaf in state.items()
    }


def _shapes(layout: Layout) -> list[Any]:
    return [[(one.name, one.shape) for one in unit.tensors] for unit in layout.units]


class _Fitting:
    """One leaf for one rank."""

    def __init__(
        self, saved: Saved, path: str, leaf: Leaf, grid: Grid, rank: int, layout: Layout
    ) -> None:
        self.saved, self.path, self.leaf, self.grid, self.layout = saved, path, leaf, grid, layout
        self.place = grid.place(rank)

    def value(self) -> Any:
        saved, leaf = self.saved, self.leaf
        array = isinstance(leaf.value, np.ndarray)
        if saved.grid == self.grid or leaf.placement == "whole":
            source = speaker(leaf, self.place)
            return self._array(source) if array else saved.value(self.path, source)
        if array:
            return getattr(self, f"_{leaf.placement}")()
        if leaf.placement == "part":
            return self._sum()
        if leaf.placement == "block":
            blocks = saved.grid.blocks
            return saved.value(
                self.path, Place(self.place.block * blocks // self.grid.blocks, 0, 0)
            )
        return leaf.value

    def _array(self, place: Place) -> np.ndarray:
        found, wanted = self.saved.array(self.path, place), self.leaf.value.dtype
        require(
            found.dtype == wanted,
            f"{self.saved.name}: {self.path} is {found.dtype}, this run needs {wanted}",
        )
        return found

    def _recut(self, block: int, member: int) -> np.ndarray:
        """Return this rank's shard of a vector that the ranks of one worker wrote."""
        shards = [self._array(Place(block, member, s)) for s in range(self.saved.grid.partition)]
        return recut(self.layout, self.place.shard, self.saved.layout, shards)

    def _shard(self) -> np.ndarray:
        return self._recut(0, 0)

    def _block(self) -> np.ndarray:
        blocks, now = self.saved.grid.blocks, self.grid.blocks
        if blocks == now:
            return self._recut(self.place.block, 0)
        for shard in range(self.saved.grid.partition):
            sums = {
                self.saved.arrays[self.path, Place(b, 0, shard)]["sha256"] for b in range(blocks)
            }
            if len(sums) > 1:
                raise UserError(
                    f"{self.saved.name}: {self.path} is another in each of {blocks} blocks, and "
                    f"{now} blocks cannot go on from there: resume with as many, or from a "
                    "checkpoint at the end of a block (--checkpoint-every a multiple of "
                    "--block-steps)"
                )
        return self._recut(0, 0)

    def _own(self) -> np.ndarray:
        old, mine = self.saved.grid, self.place
        worker = mine.block * self.grid.gradient + mine.member
        left = np.zeros(self.layout.shard, np.float64)
        found = np.zeros(self.layout.shard, self.leaf.value.dtype)
        for target in range(worker + 1):
            total = left
            for source in range(old.workers):
                if source * self.grid.workers // old.workers == target:
                    total = total + self._recut(*divmod(source, old.gradient))
            found = total.astype(found.dtype)
            left = total - found
        return found

    def _chunk(self) -> np.ndarray:
        old, total = self.saved.grid, np.zeros(self.layout.shard, self.leaf.value.dtype)
        for block in range(old.blocks):
            if block * self.grid.blocks // old.blocks == self.place.block:
                shards = [
                    np.concatenate([self._array(Place(block, m, s)) for m in range(old.gradient)])
                    for s in range(old.partition)
                ]
                total += recut(self.layout, self.place.shard, self.saved.layout, shards)
        return total[chunks.slices(total, self.grid.gradient)[self.place.member]]

    def _sum(self) -> list[int]:
        """Return the sum over all ranks that were, on the first that is."""
        parts = [one["value"] for (name, _), one in self.saved.values.items() if name == self.path]
        sums = [sum(numbers) for numbers in zip(*parts, strict=True)]
        return sums if self.place == Place(0, 0, 0) else [0 * number for number in sums]
