"""Which examples are in which micro-batch: a function of (seed, epoch, step), never of a rank.

Global step t consists of micro-batches 0 .. M-1 of B examples each.  An epoch is one random order
of all examples, cut into steps of M B; what is left at its end (fewer than M B) is left out of
that epoch, and another order leaves out others.  All ranks therefore take the same number of
steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError


class Batches:
    """The micro-batches of a run.

    Parameters
    ----------
    examples : int
        How many there are.
    batch : int
        B, the examples of a micro-batch.
    micro_batches : int
        M, the micro-batches of one step of the whole world.

    >>> batches = Batches(examples=10, batch=2, micro_batches=2, seed=1)
    >>> batches.steps_per_epoch
    2
    >>> epoch = [batches.index(step, m) for step in (0, 1) for m in (0, 1)]
    >>> len(set(np.concatenate(epoch).tolist()))
    8

    One rank with four micro-steps sees what four ranks see:

    >>> one, four = Batches(99, 3, 4, 7), Batches(99, 3, 4, 7)
    >>> all((one.index(5, m) == four.index(5, m)).all() for m in range(4))
    True
    """

    def __init__(self, examples: int, batch: int, micro_batches: int, seed: int) -> None:
        self.examples, self.batch, self.micro_batches = examples, batch, micro_batches
        self.seed = seed
        self.steps_per_epoch = examples // (batch * micro_batches)
        if self.steps_per_epoch < 1:
            raise UserError(
                f"{examples} training examples are fewer than one step of {micro_batches} "
                f"micro-batches x {batch} examples = {batch * micro_batches}: lower --batch or "
                "--microsteps, or use fewer ranks"
            )
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def index(self, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Return the numbers of the examples (B,) in a micro-batch of a step counted from 0."""
        epoch, step = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = stream(self.seed, "order", epoch).permutation(self.examples)
            self._epoch = epoch
        start = (step * self.micro_batches + micro_batch) * self.batch
        return self._order[start : start + self.batch]
