"""A line per step, for those who want to see inside an epoch (``--log-every N``).

Only what one rank knows goes into a line, so that it costs no message: its own loss, what it
has sent, and what its gradient axis says of the last step.
"""

from __future__ import annotations

from typing import Any

from refimpl.methods.losses import LOSS_UNIT, Loss
from refimpl.methods.protocol import GradientAxis
from refimpl.run.tally import Tally
from refimpl.world.ledger import Ledger


class StepLog(Tally):
    """What happened since the last line, on this rank.

    Parameters
    ----------
    every : int
        Steps from one line to the next; 0 for none.
    gradient : GradientAxis
        Whose statistics go into the lines.
    ledger : Ledger
        Where this rank's messages are counted.
    frames : int
        This rank's frames of a step.
    """

    def __init__(self, every: int, gradient: GradientAxis, ledger: Ledger, frames: int) -> None:
        super().__init__(ledger)
        self.every, self.gradient, self.frames = every, gradient, frames

    def line(self, step: int, lr: float, loss: Loss) -> dict[str, Any] | None:
        """Return the line that is due after a step was taken, as plain data; None if none is.

        ``step`` and ``lr``; ``loss``, the mean over this rank's frames since the last line;
        ``ledger``, messages and bytes that this rank has sent since then per class of link; and
        with a compressed gradient ``compression``, the axis' statistics of this step.
        """
        self.add(loss)
        if not self.every or step % self.every:
            return None
        line = {
            "step": step,
            "lr": lr,
            "loss": self.losses.units * LOSS_UNIT / (self.steps * self.frames),
            "ledger": {link: count._asdict() for link, count in self.sent().items()},
        }
        numbers = self.gradient.statistics()
        if numbers:
            line["compression"] = numbers
        self.begin()
        return line
