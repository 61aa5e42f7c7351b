"""The mean of the groups' models, and what it sends: all methods of the block axis begin with it.

Only representatives talk between groups: they sum up their models, and broadcast the *mean* inside
their groups.  Equal numbers are then on all ranks with this shard, so every one of them can do by
itself what is done with the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.methods import dense
from refimpl.methods.calls import Call, Setting
from refimpl.methods.options import least, option
from refimpl.methods.protocol import Context


def steps_option() -> Any:
    """Return the option of a block's length: one flag for all methods."""
    return option("--block-steps", 50, "local steps of a block", least(1))


class Mean:
    """Averages models on one rank; ``models``: how many."""

    def __init__(self, context: Context) -> None:
        self.block, self.group = context.groups.block, context.groups.gradient
        self.collectives = context.collectives
        self.fixed = context.fixed(self.block.size, "the model")
        self.models = self.block.size

    def __call__(self, weights: np.ndarray) -> None:
        """Replace weights (shard,) by the mean over the groups, the same bits on all ranks.

        Collective over all ranks with this shard.  The sum over groups (order of summation: the
        collective's; none with ``--reduction exact``), divided by b.  Cost: between
        representatives one all-reduce of the shard, inside a group one broadcast.
        """
        with self.block.purpose("models"):
            if self.group.rank == 0:
                dense.allreduce(self.block, self.collectives, weights, self.fixed)
                weights /= self.models
            if self.group.size > 1:
                self.collectives.broadcast(self.group, weights)


def calls(setting: Setting, values: int | None = None) -> Iterator[Call]:
    """Yield what all ranks send for a mean of so many values of a shard; by default of all.

    One all-reduce of each shard among the b representatives, one broadcast of it inside every
    gradient group.
    """
    n = setting.layout.shard if values is None else values
    for group in setting.talking("block"):
        yield Call(setting, "block", group, "models", "allreduce", n, setting.summed)
    for group in setting.talking("gradient"):
        yield Call(setting, "gradient", group, "models", "broadcast", n, setting.itemsize)
