"""One training step: the three axes in their order.

    for each micro-step:   forward and backward, unit by unit      partition: gather, free, reduce
    after the last one:    the sum over the gradient group         gradient: combine
    then:                  mean, clip, optimizer on the own shard  partition: update
    at the end of a block: the filtered mean of the models         block: sync

In a warm start all blocks take their steps as one: the sum is exact and over all of them, so that
ranks with a shard hold the same; the block axis begins where it ends.

The trainer calls `Replica.step` with its micro-batches and knows nothing of methods.  For data
parallelism alone, `refimpl.methods.plain` is the same step in a dozen lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from refimpl.collectives import Collectives
from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.faults import Faults
from refimpl.methods.losses import Loss
from refimpl.methods.protocol import BlockAxis, Context, GradientAxis
from refimpl.methods.strategies import Methods
from refimpl.nn import MicroBatch, Sequential, SoftmaxCrossEntropy
from refimpl.nn.flat import Layout
from refimpl.optim import Optimizer, clip
from refimpl.state import tree
from refimpl.state.tree import Leaf, Tree
from refimpl.world.groups import Groups

Batches = Callable[[int], tuple[np.ndarray, np.ndarray]]  # micro-step -> inputs, labels


@dataclass(frozen=True)
class StepOptions:
    """What `Replica` needs to know beside the grid and the methods.

    ``batch``: the most frames of a micro-batch.  ``exact``: add in fixed point.  ``clip``: the
    largest norm of the mean gradient.
    """

    batch: int
    microsteps: int
    exact: bool = False
    clip: float | None = None
    dtype: str = "float32"


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
    methods : Methods
        What fills the axes.
    options : StepOptions
        Sizes and choices.

    Attributes
    ----------
    partition, gradient, block : PartitionAxis, GradientAxis, BlockAxis or None
        The methods, running.  ``block`` is None for a block axis of length 1, which averages
        nothing: the weights keep their bits, where a filter would turn w into s + (w - s).
    warm : GradientAxis or None
        What stands for ``gradient`` in a warm start.
    faults : Faults
        Numbers that this rank should not have seen; whoever trains asks all ranks now and then.
    """

    def __init__(
        self,
        network: Sequential,
        groups: Groups,
        collectives: Collectives,
        optimizer: Optimizer,
        methods: Methods,
        options: StepOptions,
    ) -> None:
        self.network, self.groups, self.optimizer = network, groups, optimizer
        self.events, self.faults = groups.world.events, Faults(groups.world.rank)
        self.methods, self.options = methods, options
        worker = options.batch * options.microsteps * groups.grid.partition
        dtype = np.dtype(options.dtype)
        layout = Layout(network.units, groups.grid.partition)
        step = options.microsteps, worker, options.exact, network, optimizer, self.faults
        self.context = context = Context(groups, collectives, layout, dtype, *step)
        self.partition = methods.partition.build(context)
        self.gradient = methods.gradient.build(context)
        self.block: BlockAxis | None = None
        if methods.block is not None and groups.grid.blocks > 1:
            self.block = methods.block.build(context)
        joined = replace(context, groups=groups.joined())
        self.warm = methods.warm().gradient.build(joined) if methods.warm_steps else None
        self.steps = 0
        self._begin()
        self.loss = SoftmaxCrossEntropy()
        self.loss.plan(options.batch, network.outputs, dtype)
        self._norm = GlobalNorm(exact=options.exact) if options.clip else None

    # ------------------------------------------------------------------------------ one step

    def step(self, batches: Batches, lr: float, frames: int | None = None) -> Loss:
        """Take one step; afterwards all ranks of this block hold the same new parameters.

            gradient = sum over the block's frames of the step; in a warm start over all frames
            w        = optimizer(w, gradient / frames * min(1, clip / norm), lr)

        ``batches(m)`` returns inputs (rows, inputs) and labels (rows,) of micro-step m, ``batch``
        rows each; or fewer, none even, if ``frames`` says how many all micro-batches of that sum
        have together: one division, no mean of means.  After the last step of a block all
        blocks' ranks hold the same.  Returns the sum of this rank's losses.  Collective.
        """
        self.faults.step += 1
        with self.events.during("phase", "step"):
            partition, combining, loss = self.partition, self.combining, Loss()
            at_once = combining.every_microstep
            for microstep in range(self.options.microsteps):
                first = microstep == 0
                # Hop 1, in every micro-step: units' gradients are summed in the partition group.
                x, labels = batches(microstep)
                assert frames or len(labels) == self.options.batch, "say how many frames count"
                loss += self._forward_backward(x, labels, microstep, first or at_once)
                if at_once:  # what two hops improve on: hop 2 in every micro-step, too
                    partition.finish()
                    self._check(partition.gradient)
                    combining.combine_now(partition.gradient, first)
            if not at_once:
                partition.finish()
                self._check(partition.gradient)
            # Hop 2, once a step: the shards of the gradient group become one.
            with self.events.during("phase", "combine", partition.gradient):
                gradient = combining.combine(partition.gradient)
            self.events.tell("combined", gradient)
            self._update(gradient, lr, frames)
        self.steps += 1
        if self.steps <= self.methods.warm_steps:
            self._begin()
        elif self.block is not None:
            self.block.frames += self.frames if frames is None else frames
            left = self.block.steps - (self.steps - self.block_start)
            if left == self.block.early > 0:
                self.block.prepare(self.partition.weights())
            if left == 0:
                self._sync(self.block, lr, closing=False)
        return loss

    def _check(self, gradient: np.ndarray) -> None:
        """Look at a worker's own gradient, before it becomes the group's."""
        self.faults.check(gradient, self.context.layout, self.groups.partition.members)

    def _forward_backward(self, x: np.ndarray, labels: np.ndarray, m: int, first: bool) -> Loss:
        """Compute micro-step m; its gradients are the first of a step, or added."""
        rank, microsteps = self.groups.world.rank, self.options.microsteps
        name = MicroBatch(self.steps, self.groups.grid.micro_batch(rank, m, microsteps))
        loss = Loss.of(self.loss.forward(self.outputs(x, name), labels))
        if not loss.finite:
            self.faults.tell("the loss is not finite")
        dy, lowest = self.loss.backward(), self.network.units[0]
        for layer in reversed(self.network.layers):
            self.partition.gather(layer, following=-1)
            with self.events.during("compute", f"backward {layer.name}"):
                below = layer.backward(dy, input_gradient=layer is not lowest)
            self.partition.reduce(layer, first)
            self.partition.free(layer)
            if below is None:
                break  # nobody asks for the gradient of the inputs
            dy = below
        return loss

    def outputs(self, x: np.ndarray, batch: MicroBatch | None = None) -> np.ndarray:
        """Return the logits for rows x, in training those of a micro-batch.  Collective."""
        for layer in self.network.layers:
            self.partition.gather(layer, following=+1)
            with self.events.during("compute", f"forward {layer.name}"):
                x = layer.forward(x) if batch is None else layer.train(x, batch)
            self.partition.free(layer)
        return x

    @property
    def combining(self) -> GradientAxis:
        """What combines the gradients of the next step."""
        warm = self.steps < self.methods.warm_steps
        return self.warm if warm and self.warm is not None else self.gradient

    @property
    def frames(self) -> int:
        """Frames behind a combined gradient: batch x micro-steps x ranks of the block, or all."""
        grid = self.groups.grid if self.combining is self.gradient else self.groups.grid.joined()
        return self.context.frames * grid.gradient

    def _update(self, gradient: np.ndarray, lr: float, frames: int | None = None) -> None:
        """Move the parameters by the block's gradient sum (shard,), over so many frames."""
        scale = 1.0 / (frames or self.frames)
        if self._norm is not None and self.options.clip is not None:
            norm = self._norm(self.groups.partition, gradient) * scale
            if not np.isfinite(norm):
                self.faults.tell("the norm of the gradient is not finite", late=True)
            elif self.faults.first is None:
                scale *= clip.coefficient(norm, self.options.clip)
        if self.faults.first is not None:
            gradient.fill(np.nan)
        with self.events.during("phase", "update"):
            self.partition.update(gradient, lr, scale)

    # ---------------------------------------------------------------------------- one block

    def _begin(self) -> None:
        """Let a block begin from the model that all ranks hold: initial, or of a warm start."""
        self.block_start = self.steps
        if self.block is not None:
            self.block.begin(self.partition.weights())

    def end_block(self, lr: float) -> None:
        """Bring all models together, if they are not: average them over the blocks and filter.

        What gradients still owe is settled first, perhaps by one more optimizer step; the
        optimizer starts the next block without memory unless that is to be kept.  Collective.
        """
        if self.block and not (self.steps == self.block_start and self.block.together):
            self._sync(self.block, lr, closing=True)

    def _sync(self, block: BlockAxis, lr: float, closing: bool) -> None:
        self.block_start = self.steps
        with self.events.during("phase", "end of block"):
            owed = self.gradient.settle(self.partition.gradient)
            if owed is not None:
                self._update(owed, lr)
            weights = self.partition.weights()
            block.sync(weights, closing)
            block.frames = 0
            self.partition.replace(weights)
        if block.resets:
            self.optimizer.reset(self.partition.states)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Hold, inside the ``with`` block, the parameters that stand for the model: BMUF's W.

        After `end_block` and until the next step W is what was averaged and filtered, while
        training goes on from the look-ahead.  Without a block axis nothing is done.  Collective.
        """
        if self.block is None:
            yield
            return
        assert self.steps == self.block_start and self.block.together, "models are apart"
        self._hold(self.block.model)
        try:
            yield
        finally:
            self._hold(self.block.start())

    def _hold(self, shard: np.ndarray) -> None:
        weights = self.partition.weights()
        weights[:] = shard
        self.partition.replace(weights)

    # ---------------------------------------------------------------------------- as a state

    def state(self) -> Tree:
        """Return all that the next step depends on; arrays are not copies."""
        block = {} if self.block is None else self.block.state()
        return {
            **tree.under("partition", self.partition.state()),
            **tree.under("gradient", self.gradient.state()),
            **tree.under("block", block),
            "steps": Leaf(self.steps),
            "block_start": Leaf(self.block_start),
        }

    def load(self, state: Tree) -> None:
        """Set what `state` returned.  Collective."""
        self.partition.load(tree.branch(state, "partition"))
        self.gradient.load(tree.branch(state, "gradient"))
        if self.block is not None:
            self.block.load(tree.branch(state, "block"))
        self.steps, self.block_start = state["steps"].value, state["block_start"].value

    @property
    def state_bytes(self) -> int:
        """Bytes of state that this rank keeps between steps, that of all three axes."""
        axes = [self.gradient.state()] + ([] if self.block is None else [self.block.state()])
        return self.partition.state_bytes + sum(tree.nbytes(one) for one in axes)
