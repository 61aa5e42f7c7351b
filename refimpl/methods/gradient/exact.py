"""The gradient axis, exactly: one all-reduce of the shard (hop 2 of two-hop synchronisation).

Ranks of a gradient group hold the same shard and have seen different data.  With gradient_i the
shard of rank i, the sum over its worker's frames of the step,

    combined = gradient_0 + gradient_1 + ... + gradient_(g-1)      once, after the last micro-step

``--sync every-microstep`` does it after every micro-step and adds up what comes: s times the
messages for the same sum, which is what two hops improve on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.options import option
from refimpl.methods.protocol import Context, GradientAxis, GradientMethod


@dataclass(frozen=True)
class Exact(GradientMethod):
    """The exact sum."""

    name: ClassVar[str] = "exact"
    title: ClassVar[str] = "exact gradients"

    every_microstep: bool = option(
        "--sync",
        False,
        "when gradients cross replicas: two-hop (default), every-microstep",
        choices={"two-hop": False, "every-microstep": True},
        metavar="KIND",
    )

    def build(self, context: Context) -> AllReduce:
        """Return the all-reduce of one rank."""
        return AllReduce(context, self.every_microstep)

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield one all-reduce of the shard in every gradient group, or one per micro-step."""
        times = setting.microsteps if self.every_microstep else 1
        for group in setting.talking("gradient"):
            n, size = setting.layout.shard, setting.summed
            yield Call(setting, "gradient", group, "gradients", "allreduce", n, size, times=times)


class AllReduce(GradientAxis):
    """The exact sum over the group.

    Order of summation: that of the collective, see `refimpl.collectives`; with int64 gradients
    (``--reduction exact``) the order does not matter, and the sum is rounded at the end: once, but
    for sums beyond 2^13 (`refimpl.numerics.exact`).
    Cost: one all-reduce of the shard.
    """

    def __init__(self, context: Context, every_microstep: bool = False) -> None:
        self.group, self.collectives = context.groups.gradient, context.collectives
        self.every_microstep = every_microstep
        self.fixed = context.fixed(self.group.size)
        summed = np.int64 if context.exact else context.dtype
        self._sum = np.zeros(context.layout.shard if context.exact else 0, context.dtype)
        self._total = np.zeros(context.layout.shard if every_microstep else 0, summed)

    def combine(self, gradient: np.ndarray) -> np.ndarray:
        """Return the sum over the group as floats; of all micro-steps, if they came one by one."""
        if self.every_microstep:
            gradient = self._total
        else:
            self._allreduce(gradient)
        if self.fixed is None:
            return gradient
        self.fixed.decode(gradient, self._sum)
        return self._sum

    def combine_now(self, gradient: np.ndarray, first: bool) -> None:
        """Add one micro-step's sum over the group to the total.

        It is combined before it is added: combining the running total would count the earlier
        micro-steps again and again.
        """
        self._allreduce(gradient)
        if first:
            self._total[:] = gradient
        else:
            self._total += gradient

    def _allreduce(self, gradient: np.ndarray) -> None:
        if self.group.size > 1:
            with self.group.purpose("gradients"):
                self.collectives.allreduce(self.group, gradient)
