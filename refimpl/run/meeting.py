"""Where the ranks of a run meet: what was sent, what the loss is, and is everybody well?"""

from __future__ import annotations

import math
from typing import Any

from refimpl.collectives import small
from refimpl.methods import faults
from refimpl.methods.losses import LOSS_UNIT, Loss
from refimpl.methods.protocol import GradientAxis
from refimpl.run.stragglers import Clock, stragglers
from refimpl.support.errors import Diverged
from refimpl.world.communicator import Communicator
from refimpl.world.ledger import Count, summed

# Steps of an epoch from one question whether any rank has seen a fault to the next.
MEET = 100


class Meeting:
    """What all ranks ask each other.  Every method that says so is collective."""

    def __init__(self, comm: Communicator, seen: faults.Faults, lr: float) -> None:
        self.comm, self.seen, self.clock = comm, seen, Clock()
        self.remedy = f"; lower --lr (it is {lr:g}) or set --clip"

    @property
    def faulty(self) -> int:
        """1 if this rank has seen a number that cannot be, else 0."""
        return int(self.seen.first is not None)

    def between(self, taken: int, steps: int) -> None:
        """End the run on all ranks if any is faulty, after every MEET steps of an epoch.

        Its end has `mean_loss` for that.  Collective; one byte from each rank.
        """
        if taken % MEET == 0 and taken < steps:
            row = bytearray([self.faulty])
            self._end_if(bool(small.gathered(self.comm, row).any()))

    def mean_loss(self, losses: Loss, frames: int) -> float:
        """Return the mean loss of an epoch, the same for every world size; or end.  Collective."""
        units, faulty = small.summed(self.comm, (losses.units, self.faulty))
        self._end_if(bool(faulty))
        return units * LOSS_UNIT / frames

    def _end_if(self, faulty: bool) -> None:
        if faulty:
            faults.end(self.comm, self.seen, self.remedy)

    def require_finite(self, scores: dict[str, Any], split: str, step: int) -> None:
        """Raise `Diverged` for a loss that is not finite, the same on all ranks."""
        if not math.isfinite(scores["loss"]):
            what = f"the loss on {split} is not finite"
            raise Diverged(f"training diverged by step {step}: {what}{self.remedy}")

    def told(
        self, mine: dict[str, Count], gradient: GradientAxis, seconds: float
    ) -> tuple[dict[str, Count], dict[str, Any], list[dict[str, Any]]]:
        """Return what all ranks have sent, the epoch of their gradient axes, and who was slow.

        ``seconds``: how long the epoch took.  Collective.
        """
        each = self.comm.allgather_object((mine, gradient.told(), self.clock.told()))
        sent, told, computed = zip(*each, strict=True)
        slow = stragglers(computed, seconds, self.comm.nodes)
        return summed(sent), gradient.epoch(told), slow
