"""The communicators of the grid's axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from refimpl.world.communicator import Communicator
from refimpl.world.topology import Grid


@dataclass(frozen=True)
class Groups:
    """The communicators of one rank.

    ``partition``: the p ranks that hold one replica of the model states.  ``gradient``: the g
    ranks of this block with the same shard.  ``block``: the b ranks at this place in every block.
    ``replication``: all b g ranks with the same shard.
    """

    grid: Grid
    world: Communicator
    partition: Communicator
    gradient: Communicator
    block: Communicator
    replication: Communicator

    @classmethod
    def split(cls, world: Communicator, grid: Grid) -> Groups:
        """Cut the world into the groups of every axis.  Collective over the world."""
        assert grid.world == world.size, (grid, world.size)

        def group_of(members: list[int]) -> Communicator:
            group = world.split(color=min(members), key=world.rank)
            assert group is not None and group.size == len(members)
            return group

        return cls(
            grid,
            world,
            group_of(grid.partition_group(world.rank)),
            group_of(grid.gradient_group(world.rank)),
            group_of(grid.block_group(world.rank)),
            group_of(grid.replication_group(world.rank)),
        )

    def joined(self) -> Groups:
        """Return these groups with all blocks as one; nobody talks on the block axis then."""
        return replace(self, grid=self.grid.joined(), gradient=self.replication)

    def free(self) -> None:
        """Give back the communicators of all axes.  Collective."""
        for group in (self.partition, self.gradient, self.block, self.replication):
            group.free()
