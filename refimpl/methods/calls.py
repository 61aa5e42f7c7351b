"""What a method's closed formula is made of: the calls of a step, in the setting of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refimpl.collectives import Collectives
from refimpl.collectives.cost import Cost
from refimpl.nn.flat import Layout
from refimpl.world.topology import Grid, Nodes

Statistics = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What closed formulas are filled in with, beside a method's own options.

    ``itemsize``: bytes of a value.  ``exact``: sums are added as 8-byte integers.
    ``every_microstep``: hop 2 in every micro-step.  ``clip``: the gradient's norm is needed.
    """

    grid: Grid
    nodes: Nodes
    layout: Layout
    collectives: Collectives
    microsteps: int = 1
    itemsize: int = 4
    exact: bool = False
    every_microstep: bool = False
    clip: bool = False

    @property
    def summed(self) -> int:
        """Bytes of a value while it is added up."""
        return 8 if self.exact else self.itemsize

    def talking(self, axis: str) -> list[list[int]]:
        """Return the groups of an axis that talk: those of more than one rank."""
        return [group for group in self.grid.groups(axis) if len(group) > 1]


@dataclass(frozen=True)
class Call:
    """One exchange of a group: what it is for, and what it costs.

    ``operation`` is a collective's of the run's family, on n values of ``itemsize`` bytes, in
    chunks that are cut at ``offsets``.  An exchange that is a method's own gives its cost as
    ``own``, whatever the family.
    """

    setting: Setting
    axis: str
    group: list[int]
    purpose: str
    operation: str = ""
    n: int = 0
    itemsize: int = 4
    own: Cost | None = None
    times: int = 1
    offsets: tuple[int, ...] | None = None

    @property
    def where(self) -> tuple[int, ...]:
        """The nodes of the group's ranks."""
        return self.setting.nodes.nodes_of(self.group)

    def cost(self) -> Cost:
        """Return the cost of one such exchange."""
        if self.own is not None:
            return self.own
        family = self.setting.collectives
        return family.cost(
            self.operation, self.n, self.where, itemsize=self.itemsize, offsets=self.offsets
        )
