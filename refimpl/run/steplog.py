"""A line per step, for those who want to see inside an epoch (``--log-every N``).

Only what one rank knows goes into a line, so that it costs no message: its own loss, what it
has sent, and what its gradient axis says of the last step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refimpl.methods.step import LOSS_UNIT
from refimpl.world.ledger import Ledger

if TYPE_CHECKING:
    from refimpl.methods.step import Replica


class StepLog:
    """What happened since the last line, on this rank.

    Parameters
    ----------
    every : int
        Steps from one line to the next; 0 for none.
    replica : Replica
        Whose steps these are.
    ledger : Ledger
        Where its messages are counted.
    frames : int
        This rank's frames of a step.
    """

    def __init__(self, every: int, replica: Replica, ledger: Ledger, frames: int) -> None:
        self.every, self.replica, self.ledger, self.frames = every, replica, ledger, frames
        self.begin()

    def begin(self) -> None:
        """Count from here: an epoch begins, and with it the replica's sum of losses."""
        self._steps = self._losses = 0
        self._sent = self.ledger.totals()

    def line(self, step: int, lr: float) -> dict[str, Any] | None:
        """Return the line that is due after a step was taken, as plain data; None if none is.

        ``step`` and ``lr``; ``loss``, the mean over this rank's frames since the last line;
        ``ledger``, messages and bytes that this rank has sent since then per class of link; and
        with a compressed gradient ``compression``, the axis' statistics of this step.
        """
        self._steps += 1
        if not self.every or step % self.every:
            return None
        units, now = self.replica.loss_units - self._losses, self.ledger.totals()
        line = {
            "step": step,
            "lr": lr,
            "loss": units * LOSS_UNIT / (self._steps * self.frames),
            "ledger": {link: (now[link] - self._sent[link])._asdict() for link in now},
        }
        numbers = self.replica.axis.statistics()
        if numbers:
            line["compression"] = numbers
        self._steps, self._losses, self._sent = 0, self.replica.loss_units, now
        return line
