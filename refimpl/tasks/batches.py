"""Which examples are in which micro-batch: a function of (seed, epoch, step), never of a rank.

Global step t consists of micro-batches 0 .. M-1 of B examples each.  An epoch is one random order
of all examples, cut into steps of M B; what is left at its end is left out of that epoch, and
another order leaves out others.  All ranks therefore take the same number of steps; and so that
runs with steps of other sizes see the same examples, an epoch can be made a multiple of theirs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError


class Batches:
    """The micro-batches of a run.

    ``examples``: how many there are.  ``batch``: b, the examples of a micro-batch.
    ``micro_batches``: m, the micro-batches of one step of the whole world.  ``multiple``: the
    examples of an epoch are a multiple of so many, a multiple of M B itself.

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

    def __init__(
        self, examples: int, batch: int, micro_batches: int, seed: int, multiple: int = 1
    ) -> None:
        self.examples, self.batch, self.micro_batches = examples, batch, micro_batches
        self.seed = seed
        multiple = math.lcm(multiple, batch * micro_batches)
        self.steps_per_epoch = examples // multiple * multiple // (batch * micro_batches)
        if self.steps_per_epoch < 1 and multiple > batch * micro_batches:
            raise UserError(
                f"{examples} training examples are fewer than {multiple}, the least number that "
                f"all strategies can take in whole steps (one takes {batch * micro_batches} at a "
                "time): give --batch that are multiples of one another"
            )
        if self.steps_per_epoch < 1:
            raise UserError(
                f"{examples} training examples are fewer than one step of {micro_batches} "
                f"micro-batches x {batch} examples = {batch * micro_batches}: lower --batch or "
                "--microsteps, or use fewer ranks"
            )
        self._epoch = -1
        self._order = np.arange(0)

    def index(self, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Return the numbers of the examples (B,) in a micro-batch of a step counted from 0."""
        epoch, step = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            # The order of `permutation(examples)`, in half its memory: every rank has it.
            short = self.examples <= np.iinfo(np.int32).max
            self._order = np.arange(self.examples, dtype=np.int32 if short else np.int64)
            stream(self.seed, "order", epoch).shuffle(self._order)
            self._epoch = epoch
        start = (step * self.micro_batches + micro_batch) * self.batch
        return self._order[start : start + self.batch].astype(np.int64)
