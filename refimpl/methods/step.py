"""One training step: the three axes in their order.

    for each micro-step:   forward and backward, unit by unit      (partition axis: fetch, reduce)
    after the last one:    the sum over the gradient group         (gradient axis)
    then:                  mean, clip, optimizer on the own shard  (partition axis: publish)
    at the end of a block: the filtered mean of the models         (block axis)

The trainer calls `Replica.step` with its micro-batches and knows nothing of strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import Collectives
from refimpl.methods.block.bmuf import BlockMomentum, BlockOptions
from refimpl.methods.gradient.exact import AllReduce, GradientAxis
from refimpl.methods.gradient.gtc.method import ThresholdCompression, ThresholdOptions
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.methods.partition.zero import ModelStates
from refimpl.nn import Layer, Sequential, SoftmaxCrossEntropy
from refimpl.numerics.exact import FixedPoint
from refimpl.optim import Optimizer, clip
from refimpl.world.groups import Groups

Batches = Callable[[int], tuple[NDArray, NDArray]]
"""Micro-step -> inputs (batch, inputs) and labels (batch,)."""

# Loss sums are added as integers of this resolution, so that they do not depend on the cluster.
LOSS_UNIT = 2.0**-32


@dataclass(frozen=True)
class StepOptions:
    """What `Replica` needs to know beside the grid.

    ``stage``: what is sharded along the partition axis.  ``batch``: frames of a micro-batch.
    ``exact``: add in fixed point.  ``every_microstep``: both hops in every micro-step.
    ``gradient``: the method on the gradient axis, `AXES`.  ``threshold``: for ``gtc``.
    ``prefetch``: stage 3 gathers the next unit while one computes.
    ``block``: for a block axis.  ``residuals``, ``keep_momentum``: what becomes of GTC's
    residuals and of the optimizer's state when models are averaged.
    """

    stage: int
    batch: int
    microsteps: int
    exact: bool = False
    every_microstep: bool = False
    prefetch: bool = False
    clip: float | None = None
    dtype: str = "float32"
    gradient: str = "exact"
    threshold: ThresholdOptions | None = None
    warmup: int = 0
    block: BlockOptions | None = None
    residuals: str = "keep"
    keep_momentum: bool = False


class Replica:
    """This rank's part of the model and how it takes a step.

    Parameters
    ----------
    network : Sequential
        Planned for at least ``batch`` rows; bound to this object's memory afterwards.
    groups : Groups
        The communicators of the three axes.
    collectives : Collectives
        The algorithms that all messages of the step use.
    optimizer : Optimizer
        Runs on this rank's shard, on the mean gradient.
    options : StepOptions
        Sizes and choices.
    """

    def __init__(
        self,
        network: Sequential,
        groups: Groups,
        collectives: Collectives,
        optimizer: Optimizer,
        options: StepOptions,
    ) -> None:
        self.network, self.groups, self.collectives = network, groups, collectives
        self.optimizer, self.options = optimizer, options
        dtype = np.dtype(options.dtype)
        self.fixed = self._fixed(groups.grid.micro_batches(options.microsteps), "a gradient")
        self.states = ModelStates(
            network,
            groups.partition,
            collectives,
            optimizer,
            stage=options.stage,
            microsteps=options.microsteps,
            dtype=dtype,
            fixed=self.fixed,
            prefetch=options.prefetch,
        )
        size = self.states.layout.shard
        self.axis = self._gradient_axis(size, dtype)
        self.blocks = BlockMomentum(
            groups.block,
            groups.gradient,
            collectives,
            options.block,
            self._fixed(groups.grid.blocks, "a model"),
        )
        self.steps = self.block_start = 0
        self.loss = SoftmaxCrossEntropy()
        self.loss.plan(options.batch, network.outputs, dtype)
        self.loss_units = 0  # sum of this rank's losses, in LOSS_UNIT, until somebody sets it to 0
        self.diverged = False  # has a loss of this rank been infinite or NaN?
        self._total = np.zeros(size if options.every_microstep else 0, self.states.gradient.dtype)
        self._sum = np.zeros(size if options.exact else 0, dtype)
        self._norm = clip.GlobalNorm(exact=options.exact) if options.clip else None
        # Models pass through the gradient's memory, which holds nothing between two steps.
        self._weights = self.states.gradient.view(dtype)[:size]
        self.states.initialise()
        if self.blocks.active:
            self.blocks.begin(self.states.own(self._weights))

    def _fixed(self, terms: int, what: str) -> FixedPoint | None:
        return FixedPoint(terms, what) if self.options.exact else None

    def _gradient_axis(self, size: int, dtype: np.dtype) -> GradientAxis:
        options, group = self.options, self.groups.gradient
        fixed = self._fixed(group.size, "a gradient")
        if options.gradient == "gtc":
            assert options.threshold is not None
            return ThresholdCompression(
                group,
                self.collectives,
                size,
                dtype,
                options.threshold,
                frames=self.frames // group.size,
                partition=self.groups.partition,
                parameters=self.states.layout.size,
                fixed=fixed,
            )
        if options.gradient == "onebit":
            return OneBit(group, self.collectives, size, dtype, warmup=options.warmup, fixed=fixed)
        return AllReduce(group, self.collectives)

    def step(self, batches: Batches, lr: float) -> None:
        """Take one step; afterwards all ranks of this block hold the same new parameters.

            gradient = sum over the block's frames of the step
            w        = optimizer(w, gradient / frames * min(1, clip / norm), lr)

        ``batches(m)`` returns the inputs (batch, inputs) and labels (batch,) of micro-step m.
        After the last step of a block all blocks' ranks hold the same.  Collective.
        """
        sync = self._every_microstep if self.options.every_microstep else self._two_hop
        self._update(sync(batches), lr)
        self.steps += 1
        if self.steps - self.block_start == self.blocks.options.steps:
            self.end_block(lr)

    def _update(self, gradient: NDArray, lr: float) -> None:
        """Move the parameters by the block's gradient sum (shard,)."""
        scale = 1.0 / self.frames
        if self._norm is not None:
            assert self.options.clip is not None
            norm = self._norm(self.groups.partition, gradient) * scale
            scale *= clip.coefficient(norm, self.options.clip)
        self.states.update(self.optimizer, gradient, lr, scale)

    def end_block(self, lr: float) -> None:
        """Average the models over the blocks and filter them, if any step was taken since.

        Residuals are settled first (``fold``: one more optimizer step with what is owed); the
        optimizer starts the next block without memory unless ``keep_momentum``.  Collective.
        """
        if not self.blocks.active or self.steps == self.block_start:
            return
        self.block_start = self.steps
        folded = self._sum if self.options.exact else self.states.gradient
        if self.axis.settle(self.options.residuals, folded):
            self._update(folded, lr)
        self.blocks.sync(self.states.own(self._weights))
        self.states.replace(self._weights)
        if not self.options.keep_momentum:
            self.optimizer.reset(self.states.states)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Hold, inside the block, the parameters that stand for the model: BMUF's W.

        After `end_block` and until the next step W is what was averaged and filtered, while
        training goes on from the look-ahead.  Without a block axis nothing is done.  Collective.
        """
        if not self.blocks.active:
            yield
            return
        self.states.own(self._weights)  # nobody else needs this memory before the next sync
        self.states.replace(self.blocks.model)
        try:
            yield
        finally:
            self.states.replace(self._weights)

    def _combined(self, gradient: NDArray) -> NDArray:
        """Return the gradient group's sum as floats, from this worker's."""
        if self.fixed is None:
            self.axis.combine(gradient)
            return gradient
        if self.axis.adds_integers:
            self.axis.combine(gradient)
            self.fixed.decode(gradient, self._sum)
        else:
            self.fixed.decode(gradient, self._sum)
            self.axis.combine(self._sum)
        return self._sum

    def _two_hop(self, batches: Batches) -> NDArray:
        """Return the block's gradient sum: hop 1 in every micro-step, hop 2 after the last."""
        for microstep in range(self.options.microsteps):
            self._microstep(microstep, *batches(microstep))
        self.states.finish()
        return self._combined(self.states.gradient)

    def _every_microstep(self, batches: Batches) -> NDArray:
        """Return the same sum by both hops in every micro-step, what two hops improve on.

        Only for a gradient axis that adds: what compresses has its own idea of a step.
        Each micro-step's gradient is combined before it is added to the total: combining the
        running total would count the earlier micro-steps again and again.
        """
        for microstep in range(self.options.microsteps):
            self._microstep(0, *batches(microstep))
            self.states.finish()
            self.axis.combine(self.states.gradient)
            if microstep == 0:
                self._total[:] = self.states.gradient
            else:
                self._total += self.states.gradient
        if self.fixed is None:
            return self._total
        self.fixed.decode(self._total, self._sum)
        return self._sum

    @property
    def state_bytes(self) -> int:
        """Bytes of state that this rank keeps between steps, that of all three axes."""
        kept = [*self.axis.state().values(), *self.blocks.state().values()]
        arrays = sum(value.nbytes for value in kept if isinstance(value, np.ndarray))
        return self.states.state_bytes + arrays

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all that the next step depends on."""
        return {
            "states": self.states.snapshot(),
            "axis": deepcopy(self.axis.state()),
            "blocks": deepcopy(self.blocks.state()),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to a `snapshot` that was taken at the start of a block.  Collective."""
        self.states.restore(saved["states"])
        self.axis.load(saved["axis"])
        self.blocks.load(saved["blocks"])

    @property
    def frames(self) -> int:
        """Frames behind one combined gradient: batch x micro-steps x ranks of the block."""
        grid = self.groups.grid
        return self.options.batch * self.options.microsteps * grid.gradient * grid.partition

    def _microstep(self, microstep: int, x: NDArray, labels: NDArray) -> None:
        logits = self.network.forward(x, before=self.states.fetch)
        loss = self.loss.forward(logits, labels)
        if np.isfinite(loss):
            self.loss_units += round(loss / LOSS_UNIT)
        else:
            self.diverged = True

        def reduce(layer: Layer) -> None:
            self.states.reduce(layer, microstep)

        self.network.backward(self.loss.backward(), before=self.states.fetch_again, after=reduce)

    def outputs(self, x: NDArray) -> NDArray:
        """Return the network's outputs (logits) for rows x.  Collective over the world."""
        return self.network.forward(x, before=self.states.fetch)
