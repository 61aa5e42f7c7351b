"""Drift: what ranks should hold alike is compared while a run goes on, by digest.

A bit that flips in the memory of one rank, or a library that adds otherwise there, stops nothing:
its gradients go into everybody's sum, and the model that is saved is rank 0's.  What must be equal
follows from the placements of the state (`refimpl.state.tree`)::

    placement   is equal on                          which are
    whole       all ranks                            the world
    shard       all ranks with this shard            the replication group
    block       those of them in this block          the gradient group
    any other   no other rank                        not compared

With g = 1 a model inside an open block has no second copy, and with R = 1 no shard has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refimpl.collectives import small
from refimpl.collectives.cost import Cost
from refimpl.nn.flat import Layout
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import Drifted
from refimpl.world.agree import named
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

COMPARED = ("whole", "shard", "block")
SIZE = 8  # bytes of a digest: two that differ look alike once in 2^64

# Called whole, since rank 0's stand for all in what is written; every rank has its own.
ITS_OWN = frozenset({"seconds", "warned", "epoch/seconds"})


class Part(NamedTuple):
    """A unit of a leaf, or a leaf that has none (unit ""), and the digest of it."""

    placement: str
    path: str
    unit: str
    digest: bytes


class Comparison:
    """Compares what ranks hold and remembers after which step all was equal (0: never yet)."""

    def __init__(self) -> None:
        self.held = 0

    def compare(self, groups: Groups, layout: Layout, state: Tree, step: int) -> None:
        """Raise `Drifted` on all ranks unless everything is equal that should be.  Collective.

        Each rank sends the digests of what it holds, one per placement, round the world.  Only if
        some differ a second exchange, of pickled objects, finds unit, leaf and rank.
        """
        world, grid = groups.world, groups.grid
        mine = np.frombuffer(b"".join(digests(state)), np.uint8)
        rows = small.gathered(world, mine).reshape(world.size, len(COMPARED), SIZE)
        alike = all(
            (rows[group, number] == rows[group[0], number]).all()
            for number, placement in enumerate(COMPARED)
            for group in groups_of(grid, placement)
        )
        if not alike:
            odd = differing(world.allgather_object(list(parts(state, layout))), grid)
            since = f"after step {self.held} they were equal" if self.held else "first comparison"
            raise Drifted(f"replicas differ after step {step}: {told(odd, world.nodes)}; {since}")
        self.held = step


def cost(nodes: tuple[int, ...]) -> Cost:
    """Return the cost of one comparison on ranks that lie on these nodes.

    Per rank n - 1 messages of 3 SIZE bytes.

    >>> cost((0, 0, 1, 1)).total()
    {'intra': Count(messages=6, bytes=144), 'inter': Count(messages=6, bytes=144)}
    """
    return small.cost(len(COMPARED) * SIZE, nodes, itemsize=1)


def groups_of(grid: Grid, placement: str) -> list[list[int]]:
    """Return the ranks that hold values of a placement alike, group by group.

    >>> grid = Grid(blocks=2, gradient=2, partition=2)
    >>> groups_of(grid, "shard"), groups_of(grid, "block")
    ([[0, 2, 4, 6], [1, 3, 5, 7]], [[0, 2], [1, 3], [4, 6], [5, 7]])
    """
    if placement == "whole":
        return [list(range(grid.world))]
    return grid.groups("replication" if placement == "shard" else "gradient")


def digests(state: Tree) -> Iterator[bytes]:
    """Yield a digest of all leaves of each placement that is compared."""
    for placement in COMPARED:
        digest = hashlib.sha256()
        for path, leaf in held(state, placement):
            digest.update(path.encode())
            _take(digest, leaf.value)
        yield digest.digest()[:SIZE]


def parts(state: Tree, layout: Layout) -> Iterator[Part]:
    """Yield the digest of every unit of every leaf that is compared."""
    for placement in COMPARED:
        for path, leaf in held(state, placement):
            value, units = leaf.value, [("", slice(None))]
            sharded = isinstance(value, np.ndarray) and value.shape == (layout.shard,)
            if sharded and placement != "whole":
                units = [(unit.name, unit.shard_place) for unit in layout.units]
            for unit, place in units:
                digest = hashlib.sha256()
                _take(digest, value[place] if unit else value)
                yield Part(placement, path, unit, digest.digest())


def held(state: Tree, placement: str) -> Iterator[tuple[str, Leaf]]:
    """Yield the leaves of a placement that are compared."""
    for path, leaf in state.items():
        if leaf.placement == placement and path not in ITS_OWN:
            yield path, leaf


def _take(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    else:
        digest.update(repr(value).encode())


class Odd(NamedTuple):
    """A part that ranks hold differently: who stands against whom (most of them)."""

    part: Part
    ranks: list[int]
    others: list[int]
    known: bool  # more than half of the group agree


def differing(everyones: list[list[Part]], grid: Grid) -> list[Odd]:
    """Return what differs, from the parts of all ranks, group by group in the order of leaves."""
    found = []
    for placement in COMPARED:
        trees = [[one for one in parts if one.placement == placement] for parts in everyones]
        for group in groups_of(grid, placement):
            for held_here in zip(*(trees[rank] for rank in group), strict=True):
                camps: dict[bytes, list[int]] = {}
                for rank, one in zip(group, held_here, strict=True):
                    camps.setdefault(one.digest, []).append(rank)
                if len(camps) > 1:
                    others = max(camps.values(), key=len)
                    ranks = [rank for rank in group if rank not in others]
                    found.append(Odd(held_here[0], ranks, others, 2 * len(others) > len(group)))
    return found


def told(found: list[Odd], nodes: tuple[int, ...]) -> str:
    """Return the first of what differs in words, and how much more there is."""
    part, ranks, others, known = found[0]
    what = f"{part.path} of unit {part.unit}" if part.unit else part.path
    if known:
        text = f"{what} on {named(ranks, nodes)} is not that of {named(others)}"
    else:
        text = f"{what} is not the same on {named(sorted([*ranks, *others]), nodes)}, "
        text += "and no majority says who is right"
    more = len({(one.part.path, one.part.unit) for one in found}) - 1
    return f"{text} (and {more} more)" if more else text
