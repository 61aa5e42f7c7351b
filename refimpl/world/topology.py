"""Who talks to whom: the rank grid and the nodes, in numbers alone.

The n ranks of the world form a grid of b x g x p, the partition axis fastest::

    rank = (block * g + member) * p + shard             b = 2, g = 2, p = 2

                        shard 0   shard 1
    block 0  member 0      0         1      <- a partition group: neighbours that together hold
             member 1      2         3         ONE replica of the model states, a shard each
    block 1  member 0      4         5
             member 1      6         7
                           ^
                           a replication group: the whole column, the same shard everywhere.
                           {0, 2} and {4, 6} are its gradient (GTC) groups, {0, 4} and
                           {2, 6} block groups: the same place in every block

A *worker* is one partition group: it computes one gradient.  An axis of length 1 vanishes:
p = n is ZeRO, p = 1 data parallelism, g = 1 BMUF, and so on for every row of the strategy table.

Beside this logical grid stands the physical one, nodes of k ranks.  Everything here is arithmetic
and needs no MPI; `refimpl.world.groups` cuts communicators by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from refimpl.support.errors import UserError, require
from refimpl.support.text import plural


def divisors(n: int) -> list[int]:
    """Return the divisors of n in rising order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


class Place(NamedTuple):
    """Where one rank stands in the grid."""

    block: int
    member: int
    shard: int


@dataclass(frozen=True)
class Grid:
    """A grid of ``blocks`` x ``gradient`` x ``partition`` ranks, partition fastest.

    >>> grid = Grid(blocks=2, gradient=2, partition=2)
    >>> grid.world, grid.place(5)
    (8, Place(block=1, member=0, shard=1))
    >>> grid.partition_group(5), grid.gradient_group(5), grid.block_group(5)
    ([4, 5], [5, 7], [1, 5])
    >>> grid.replication_group(5)
    [1, 3, 5, 7]
    """

    blocks: int
    gradient: int
    partition: int

    @classmethod
    def cut(cls, world: int, partition: int = 1, gradient: int | None = None) -> Grid:
        """Cut ``world`` ranks into partition groups of p, GTC groups of g and n/(p g) blocks.

        ``gradient=None`` puts all workers into one gradient group (one block).
        """
        require(world >= 1, f"a world of {world} ranks: there must be at least one")
        if partition < 1 or world % partition:
            raise UserError(
                f"cannot cut {plural(world, 'rank')} into partition groups of {partition}: the "
                f"group size must divide the number of ranks (one of {divisors(world)})"
            )
        workers = world // partition
        gradient = workers if gradient is None else gradient
        if gradient < 1 or workers % gradient:
            what = plural(workers, "worker") + (f" of {partition} ranks" if partition > 1 else "")
            raise UserError(
                f"cannot cut {what} into GTC groups of {gradient}: the group size must divide "
                f"the number of workers (one of {divisors(workers)})"
            )
        return cls(workers // gradient, gradient, partition)

    @property
    def world(self) -> int:
        """The number of ranks, n = b g p."""
        return self.blocks * self.gradient * self.partition

    @property
    def workers(self) -> int:
        """The number of partition groups, b g."""
        return self.blocks * self.gradient

    def joined(self) -> Grid:
        """Return the same ranks with all blocks as one: replication groups are gradient groups.

        >>> grid = Grid(blocks=2, gradient=2, partition=2)
        >>> grid.joined().gradient_group(5) == grid.replication_group(5)
        True
        """
        return Grid(1, self.workers, self.partition)

    def place(self, rank: int) -> Place:
        """Return the coordinates of a rank."""
        worker, shard = divmod(rank, self.partition)
        return Place(*divmod(worker, self.gradient), shard)

    def rank(self, block: int, member: int, shard: int) -> int:
        """Return the rank at these coordinates."""
        return (block * self.gradient + member) * self.partition + shard

    def worker(self, rank: int) -> int:
        """Return the number of the worker that a rank belongs to."""
        return rank // self.partition

    def partition_group(self, rank: int) -> list[int]:
        """Return the neighbours that hold one replica together with this rank."""
        block, member, _ = self.place(rank)
        return [self.rank(block, member, shard) for shard in range(self.partition)]

    def gradient_group(self, rank: int) -> list[int]:
        """Return the ranks of this block with the same shard and other data."""
        block, _, shard = self.place(rank)
        return [self.rank(block, member, shard) for member in range(self.gradient)]

    def block_group(self, rank: int) -> list[int]:
        """Return the ranks at the same place in every block."""
        _, member, shard = self.place(rank)
        return [self.rank(block, member, shard) for block in range(self.blocks)]

    def replication_group(self, rank: int) -> list[int]:
        """Return all ranks with the same shard: the column across both outer axes."""
        return list(range(rank % self.partition, self.world, self.partition))

    def groups(self, axis: str) -> list[list[int]]:
        """Return the groups of an axis that talk, each as its ranks in order.

        >>> Grid(1, 2, 2).groups("gradient")
        [[0, 2], [1, 3]]
        """
        shards = range(self.partition)
        firsts = {
            "partition": range(0, self.world, self.partition),
            "gradient": [self.rank(b, 0, s) for b in range(self.blocks) for s in shards],
            "block": range(self.partition * self.gradient),
            "replication": shards,
        }[axis]
        group_of = getattr(self, f"{axis}_group")
        return [group_of(first) for first in firsts]

    def micro_batch(self, rank: int, microstep: int, microsteps: int) -> int:
        """Return which of the step's micro-batches a rank computes in one micro-step.

        Workers get consecutive runs of p * s micro-batches, and inside a worker the ranks of
        one micro-step get neighbours.  So (p, g, b) with s micro-steps sees, worker by worker
        and in the same order, the data of (1, g, b) with s * p, and serial sees all of it.

        >>> [[Grid(1, 2, 2).micro_batch(r, m, 3) for m in range(3)] for r in range(4)]
        [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]
        """
        run = self.partition * microsteps
        return self.worker(rank) * run + microstep * self.partition + self.place(rank).shard

    def micro_batches(self, microsteps: int) -> int:
        """Return M, the number of micro-batches in one step of the whole world."""
        return self.world * microsteps

    def sentence(self) -> str:
        """Return the grid in words, axes of length 1 left out.

        >>> Grid(2, 4, 2).sentence()
        '16 ranks = 2 blocks x 4 members x 2 shards'
        >>> Grid(1, 1, 1).sentence()
        '1 rank'
        """
        names = ("block", self.blocks), ("member", self.gradient), ("shard", self.partition)
        axes = " x ".join(f"{n} {name}s" for name, n in names if n > 1)
        ranks = f"{self.world} rank{'s' * (self.world > 1)}"
        return f"{ranks} = {axes}" if axes else ranks


@dataclass(frozen=True)
class Nodes:
    """The physical grid: which node each rank of the world runs on.

    >>> Nodes.of(6, ranks_per_node=4).node
    (0, 0, 0, 0, 1, 1)
    """

    node: tuple[int, ...]

    @classmethod
    def of(cls, world: int, ranks_per_node: int | None = None) -> Nodes:
        """Number the nodes of k ranks each; the last one may be smaller.  None: one node."""
        k = world if ranks_per_node is None else ranks_per_node
        require(k >= 1, f"--ranks-per-node {k}: a node holds at least one rank")
        return cls(tuple(rank // k for rank in range(world)))

    @property
    def count(self) -> int:
        """The number of nodes."""
        return len(set(self.node))

    def link(self, rank: int, peer: int) -> str:
        """Return the class of the link between two ranks: ``intra`` or ``inter`` node."""
        return "intra" if self.node[rank] == self.node[peer] else "inter"

    def nodes_of(self, ranks: list[int]) -> tuple[int, ...]:
        """Return the node of each rank of a group."""
        return tuple(self.node[rank] for rank in ranks)

    def spanned(self, ranks: list[int]) -> int:
        """Return how many nodes a group of ranks touches."""
        return len(set(self.nodes_of(ranks)))

    @classmethod
    def dealt(cls, world: int, ranks_per_node: int) -> Nodes:
        """Deal ranks out in turn to as many nodes as `of` has: cyclic placement.

        >>> Nodes.dealt(6, ranks_per_node=4).node
        (0, 1, 0, 1, 0, 1)
        """
        nodes = cls.of(world, ranks_per_node).count
        return cls(tuple(rank % nodes for rank in range(world)))

    def order(self) -> list[int]:
        """Return the ranks node by node, nodes in order of their lowest rank.

        >>> Nodes((0, 1, 0, 1)).order()
        [0, 2, 1, 3]
        """
        lowest: dict[int, int] = {}
        for rank, node in enumerate(self.node):
            lowest.setdefault(node, rank)
        return sorted(range(len(self.node)), key=lambda rank: (lowest[self.node[rank]], rank))

    def ordered(self) -> Nodes:
        """Return the nodes of the ranks in that order."""
        return Nodes(self.nodes_of(self.order()))


def scattered(grid: Grid, nodes: Nodes) -> tuple[str, list[list[int]]]:
    """Return the axis whose groups talk most, and those of its groups that are torn apart.

    That axis is the innermost one: partition groups, or where there are none gradient groups.  Its
    groups are torn apart if all of them together would touch fewer nodes with ranks placed node
    by node; then those are returned that touch more nodes than one of them would.

    >>> scattered(Grid(1, 2, 2), Nodes((0, 1, 0, 1)))
    ('partition', [[0, 1], [2, 3]])
    >>> scattered(Grid(1, 2, 2), Nodes((0, 0, 1, 1)))
    ('partition', [])
    >>> scattered(Grid(1, 2, 4), Nodes((0, 0, 1, 1, 2, 2, 3, 3)))  # no node holds four
    ('partition', [])
    """
    axis = "partition" if grid.partition > 1 else "gradient"
    groups, better = grid.groups(axis), nodes.ordered()
    least = [better.spanned(group) for group in groups]
    if sum(map(nodes.spanned, groups)) <= sum(least):
        return axis, []
    return axis, [group for group in groups if nodes.spanned(group) > min(least)]


def node_members(nodes: tuple[int, ...]) -> list[list[int]]:
    """Return the ranks on each node, nodes in order of their numbers.

    >>> node_members((0, 0, 1, 1))
    [[0, 1], [2, 3]]
    >>> node_members((3, 1, 3))
    [[1], [0, 2]]
    """
    found: dict[int, list[int]] = {}
    for rank, node in enumerate(nodes):
        found.setdefault(node, []).append(rank)
    return [found[node] for node in sorted(found)]
