"""The learning rate over time.

A schedule answers two questions.  `Schedule.rate` gives the learning rate of a step, and
`Schedule.decide` says after an epoch, from the loss on the development set, whether to keep the
epoch's weights and whether to stop.  Only `Newbob` ever says no.

Time is counted in epochs, t = step / steps_per_epoch.  With a warm-up of u epochs the rate is
multiplied by min(1, (step + 1) / (u * steps_per_epoch)): a straight line that reaches the full
rate with the last step of the warm-up, and no step has rate 0.

What a schedule remembers is plain data (`Schedule.state`, `Schedule.restore`).  Ranks agree as
long as they give `decide` the same loss.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from refimpl.optim import named
from refimpl.support.errors import require


class Decision(NamedTuple):
    """What to do after an epoch.

    ``accept`` is false if the epoch made things worse: the caller then restores weights (and
    optimizer state) of the last accepted epoch.  ``stop`` ends the training.
    """

    accept: bool
    stop: bool


class Schedule:
    """The interface, and the constant rate with an optional warm-up.

    ``lr``: the full learning rate.  ``warmup``: length of the warm-up in epochs.
    """

    def __init__(self, lr: float, warmup: float = 0.0) -> None:
        require(0 < lr < math.inf, f"learning rate {lr}: must be a positive number")
        require(0 <= warmup < math.inf, f"warm-up of {warmup} epochs: must be at least 0")
        self.lr, self.warmup = float(lr), warmup

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of step 0, 1, ... of the whole training."""
        steps = self.warmup * steps_per_epoch
        line = min(1.0, (step + 1) / steps) if steps > 0 else 1.0
        return self.lr * line * self.factor(step, steps_per_epoch)

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Return what the full rate is multiplied with, apart from the warm-up."""
        return 1.0

    def decide(self, loss: float) -> Decision:
        """Say what to do after an epoch that ended with this loss on the development set."""
        return Decision(accept=True, stop=False)

    def rebase(self, loss: float) -> None:
        """Compare the next epoch with this loss: the targets changed, and so the measure."""

    def state(self) -> dict[str, Any]:
        """Return what this schedule remembers, as plain data."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        assert not state


class Constant(Schedule):
    """rate = lr."""


class Step(Schedule):
    """rate = lr * decay^floor(t / every), t in epochs.

    >>> [Step(1.0, every=2, decay=0.5).rate(step, steps_per_epoch=1) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(
        self, lr: float, every: float = 1.0, decay: float = 0.5, warmup: float = 0.0
    ) -> None:
        super().__init__(lr, warmup)
        require(every > 0, f"a step every {every} epochs: must be greater than 0")
        require(0 < decay <= 1, f"decay {decay}: must be greater than 0 and at most 1")
        self.every, self.decay = every, decay

    def factor(self, step: int, steps_per_epoch: int) -> float:
        return self.decay ** math.floor(step / (self.every * steps_per_epoch))


class Exponential(Schedule):
    """rate = lr * decay^t, t in epochs, falling with every step.

    >>> Exponential(1.0, decay=0.25).rate(1, steps_per_epoch=2)
    0.5
    """

    def __init__(self, lr: float, decay: float = 0.5, warmup: float = 0.0) -> None:
        super().__init__(lr, warmup)
        require(0 < decay <= 1, f"decay {decay}: must be greater than 0 and at most 1")
        self.decay = decay

    def factor(self, step: int, steps_per_epoch: int) -> float:
        return float(self.decay ** (step / steps_per_epoch))


class Newbob(Schedule):
    """Keep the rate until the development loss hardly falls, then multiply it every epoch.

    With L the loss of the last accepted epoch and L' that of this one::

        accept       L' < L                          a rejected epoch leaves L as it is
        improvement  (L - L') / L if accepted else 0
        stop         halving has begun and improvement < stop
        halving      begins when improvement < start, and never ends
        rate         times decay after every epoch in which halving is on

    This is the rule of Kaldi's nnet1 recipe, ``steps/nnet/train_scheduler.sh``, with its defaults.
    There the first L is the loss of the initial network; to follow it, call `decide` with that
    loss before training.  The first call only sets L, and accepts (unless the loss is NaN).

    >>> newbob = Newbob(lr=0.5)
    >>> for loss in (4.0, 2.0, 2.5, 1.9, 1.8999):
    ...     print(*newbob.decide(loss), newbob.rate(0, 1))
    True False 0.5
    True False 0.5
    False False 0.25
    True False 0.125
    True True 0.125
    """

    def __init__(
        self,
        lr: float,
        decay: float = 0.5,
        start: float = 0.01,
        stop: float = 0.001,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(lr, warmup)
        require(0 < decay < 1, f"decay {decay}: must be greater than 0 and less than 1")
        require(0 <= stop <= start, f"newbob needs 0 <= stop <= start, not {stop} and {start}")
        self.decay, self.start, self.stop = decay, start, stop
        self._factor, self._halving = 1.0, False
        self._best: float | None = None

    def factor(self, step: int, steps_per_epoch: int) -> float:
        return self._factor

    def decide(self, loss: float) -> Decision:
        best = math.inf if self._best is None else self._best
        accept = loss < best  # false for NaN
        if accept:
            self._best = float(loss)
            improvement = (best - loss) / best if best < math.inf else 1.0
        else:
            improvement = 0.0

        if self._halving and improvement < self.stop:
            return Decision(accept, stop=True)
        self._halving = self._halving or improvement < self.start
        if self._halving:
            self._factor *= self.decay
        return Decision(accept, stop=False)

    def rebase(self, loss: float) -> None:
        self._best = loss

    def state(self) -> dict[str, Any]:
        return {"factor": self._factor, "best": self._best, "halving": self._halving}

    def restore(self, state: dict[str, Any]) -> None:
        self._factor, self._best = state["factor"], state["best"]
        self._halving = state["halving"]


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "newbob": Newbob,
}


def hyper(name: str) -> dict[str, float]:
    """Return the hyper-parameters of the schedule of this name, with their defaults.

    >>> hyper("exponential")
    {'decay': 0.5, 'warmup': 0.0}
    """
    return named.defaults("schedule", SCHEDULES, name)


def make(name: str, lr: float, **given: float) -> Schedule:
    """Return the schedule of this name; hyper-parameters as keywords.

    Raises `UserError` for an unknown name, a hyper-parameter that it does not have, or a value out
    of range.
    """
    return named.made("schedule", SCHEDULES, name, lr, **given)
