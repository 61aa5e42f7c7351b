"""What the methods that send less than the gradient share: floats, and a dense beginning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.methods import dense
from refimpl.methods.calls import Call, Setting
from refimpl.methods.options import least, option
from refimpl.methods.protocol import Context, GradientAxis


def warmup_option() -> Any:
    """Return the option of a dense beginning: one flag for all methods that have it."""
    return option("--gtc-warmup", 0, "dense steps before the first compressed one", least(0))


def dense_calls(setting: Setting) -> Iterator[Call]:
    """Yield the calls of a dense step: one all-reduce of the shard in every gradient group."""
    for group in setting.talking("gradient"):
        n, size = setting.layout.shard, setting.summed
        yield Call(setting, "gradient", group, "gradients", "allreduce", n, size)


class Compressed(GradientAxis):
    """A method on float gradients that sums the first ``warmup`` steps densely.

    Attributes
    ----------
    step : int
        Steps so far.
    """

    def __init__(self, context: Context, warmup: int) -> None:
        self.group, self.collectives = context.groups.gradient, context.collectives
        self.events = context.groups.world.events
        self.fixed, self.warmup = context.fixed(self.group.size), warmup
        self._floats = np.zeros(context.layout.shard if context.exact else 0, context.dtype)
        self.step = 0

    def combine(self, gradient: np.ndarray) -> np.ndarray:
        """Return what the group makes of the sum of its gradients, as floats.  Collective."""
        if self.fixed is not None:
            self.fixed.decode(gradient, self._floats)
            gradient = self._floats
        with self.group.purpose("gradients"):
            if self.step < self.warmup:
                self.sum_densely(gradient)
            else:
                self.compress(gradient)
        self.step += 1
        return gradient

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers, plain data; empty before the first.

        ``dense``: whether it was a warm-up step; else `compressed_step`, too.
        """
        if self.step == 0:
            return {}
        dense = self.step <= self.warmup
        return {"dense": dense} | ({} if dense else self.compressed_step())

    def compressed_step(self) -> dict[str, Any]:
        """Return the numbers of the last step, which was compressed."""
        return {}

    def compress(self, gradient: np.ndarray) -> None:
        """Replace a float gradient (shard,) by what the group makes of its sum.  Collective."""
        raise NotImplementedError

    def sum_densely(self, gradient: np.ndarray) -> None:
        """Replace a float gradient by its sum over the group: one all-reduce."""
        dense.allreduce(self.group, self.collectives, gradient, self.fixed)
