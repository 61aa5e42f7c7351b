"""All workers of a run in one process, one after the other: no messages, the same bits.

What a worker computes depends on its own data and on what the others sent; who computes it, and
whether a message carried it, does not show in the numbers.  So n workers are a loop here over one
network, each with its own residual, each group with its own model, and a sum is added in the
order that the collectives of `refimpl` state.  128 workers cost little more per frame than one,
where as many threads or processes pass each other 32,512 messages in every step of GTC.

A test trains the same `Run` on ranks that are threads, and finds the same parameters to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refimpl import nn
from refimpl.collectives.chunks import Call
from refimpl.collectives.order import Order
from refimpl.methods.block.bmuf import Bmuf, block_update
from refimpl.methods.gradient.gtc import threshold
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.nn.flat import Layout
from refimpl.numerics import norm
from refimpl.optim import clip
from refimpl.run.config import Run
from refimpl.support.errors import Diverged
from refimpl.support.files import load_arrays, save_arrays
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples

DTYPE = np.dtype(np.float32)


def added(order: Order, rows: np.ndarray) -> np.ndarray:
    """Return the sum of rows (p, n) in a stated order.

    >>> added(((1, 0), 2), np.array([[1.0], [2.0], [4.0]]))
    array([7.])
    """
    if isinstance(order, int):
        return rows[order]
    left, right = order
    return added(left, rows) + added(right, rows)


class Fleet:
    """The workers of a run, ``world`` of them, and how they take a step.

    ``run``: serial, ddp, gtc, bmuf or gtc-bmuf, float sums, one micro-step.  ``network`` is bound
    to the fleet's memory.  ``multiple``: as of `Batches`.

    Attributes
    ----------
    step : int
        How many steps were taken.
    seconds : float
        Of processor time that they took; whoever trains counts them.
    models : (b, n) array
        The parameters of each group, while they are apart; all alike after a sync.
    """

    def __init__(
        self,
        run: Run,
        world: int,
        network: nn.Sequential,
        examples: Examples,
        multiple: int = 1,
    ) -> None:
        run.check(world)
        grid, methods, recipe = run.grid(world), run.chosen(), run.recipe
        assert grid.partition == recipe.microsteps == 1 and run.reduction == "float", run
        self.run, self.grid, self.network, self.examples = run, grid, network, examples
        self.step = self.block_start = 0
        self.seconds = 0.0
        self.batches = Batches(examples.count, recipe.batch, world, run.seed, multiple)
        self.schedule, self.optimizer = run.schedule(), run.optimizer()
        n, groups = network.size, grid.blocks
        self.layout = Layout(network.units)
        self.models = np.zeros((groups, n), DTYPE)
        for unit, place in zip(network.units, self.layout.units, strict=True):
            unit.initialise(self.models[0, place.place])
        self.models[1:] = self.models[0]
        self.states = [self.optimizer.allocate(n, DTYPE) for _ in range(groups)]
        self.gradient = np.zeros(n, DTYPE)

        self.gtc = methods.gradient if isinstance(methods.gradient, Threshold) else None
        self.block = methods.block if isinstance(methods.block, Bmuf) and groups > 1 else None
        # In so many steps all workers are one group that sums densely; then every group goes on
        # from that model, and from that optimizer's state.
        warm = self.gtc.warmup if self.gtc else 0
        self.warm_start = methods.warm_steps if self.block else warm
        self.residuals = np.zeros((world if self.gtc else 0, n), DTYPE)
        if self.gtc:
            assert self.gtc == Threshold(self.gtc.tau, warmup=self.gtc.warmup), self.gtc
            assert groups == 1 or not self.gtc.warmup, "a warm start is one of all workers here"
            self.tau = threshold.rounded(self.gtc.tau, DTYPE)
            self._plus, self._minus = np.empty((2, n), np.bool_)
            self._count, self._sent = np.zeros(n, np.int16), np.empty(n, DTYPE)
        if self.block:
            self.eta = self.block.momentum(groups)
            self.model, self.update = self.models[0].copy(), np.zeros(n, DTYPE)
        dense = grid.gradient if self.gtc is None else 1
        self._rows = np.zeros((world if self.warm_start else dense, n), DTYPE)
        self._x = np.zeros((recipe.batch, examples.inputs), DTYPE)
        self._y = np.zeros(recipe.batch, np.int64)
        self._norm = np.zeros(norm.STRIP)
        self.loss = nn.SoftmaxCrossEntropy()
        self.loss.plan(recipe.batch, network.outputs, DTYPE)

    # ------------------------------------------------------------------------------ one step

    @property
    def frames(self) -> int:
        """Frames that all workers together have trained on."""
        return self.step * self.grid.world * self.run.recipe.batch

    def advance(self) -> float:
        """Take one step of all workers; return the mean loss per frame.

        After the last step of a block, and of an epoch, all models are alike again.

        Raises `Diverged` if a loss or a norm is not finite.
        """
        per_epoch, grid = self.batches.steps_per_epoch, self.grid
        rate = self.schedule.rate(self.step, per_epoch)
        warm = self.step < self.warm_start
        total = 0.0
        for group in range(1 if warm else grid.blocks):
            first = group * grid.gradient
            workers = range(grid.world) if warm else range(first, first + grid.gradient)
            self._bind(self.models[group])
            total += sum(self._combine(workers, warm))
            self._move(group, self.gradient, rate, len(workers) * self.run.recipe.batch)
        self.step += 1
        if warm:
            self._spread()
        elif self.block and self.step - self.block_start == self.block.steps:
            self._sync()
        if self.block and self.step % per_epoch == 0 and self.block_start < self.step:
            self._sync()
        return total / (grid.world * self.run.recipe.batch)

    def _bind(self, weights: np.ndarray) -> None:
        for unit, place in zip(self.network.units, self.layout.units, strict=True):
            unit.bind(weights[place.place], self.gradient[place.place])

    def _combine(self, workers: range, dense: bool) -> Iterator[float]:
        """Set the gradient to what a group makes of its workers'; yield their losses."""
        gtc = None if dense else self.gtc
        for place, worker in enumerate(workers):
            index = self.batches.index(self.step, worker)
            self.examples.take(index, self._x, self._y)
            loss = self.loss.forward(self.network.forward(self._x), self._y)
            if not np.isfinite(loss):
                raise Diverged(f"the loss is {loss} in step {self.step + 1}")
            self.network.backward(self.loss.backward())
            if gtc:
                self._send(self.residuals[worker])
            elif len(workers) > 1:
                self._rows[place] = self.gradient
            yield loss
        if gtc:
            np.multiply(self._count, self.tau, out=self.gradient, dtype=DTYPE)
            self._count[:] = 0
        elif len(workers) > 1:
            self._sum(self._rows[: len(workers)], self.gradient)

    def _send(self, residual: np.ndarray) -> None:
        """Add the gradient to a residual (n,), take out what GTC sends of it, and count that.

        What `refimpl.methods.gradient.gtc.threshold` does, without words in between.
        """
        residual += self.gradient
        np.greater(residual, self.tau, out=self._plus)
        np.less(residual, -self.tau, out=self._minus)
        signs = self._plus.view(np.int8)
        signs -= self._minus.view(np.int8)
        self._count += signs
        np.multiply(signs, self.tau, out=self._sent, dtype=DTYPE)
        residual -= self._sent

    def _sum(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Set out (n,) to the sum of rows (p, n) as the run's all-reduce adds it."""
        call = Call.of(out.size, nodes=(0,) * len(rows))
        algorithm = self.run.family().family("allreduce", out.size, call.nodes, 4)
        orders = algorithm.algorithms["allreduce"].orders
        assert orders is not None
        for place, order in orders(call):
            out[place] = added(order, rows[:, place])

    def _move(self, group: int, gradient: np.ndarray, rate: float, frames: int) -> None:
        scale = 1.0 / frames
        if self.run.recipe.clip:
            length = norm.float_norm([norm.square_sum(gradient, self._norm)]) * scale
            scale *= clip.coefficient(length, self.run.recipe.clip)
        states = self.states[group]
        self.optimizer.advance(states)
        self.optimizer.update(self.models[group], gradient, states, rate, scale)

    # ---------------------------------------------------------------------------- one block

    def _spread(self) -> None:
        """End a step of the warm start: all groups have the model, and a block begins."""
        self.block_start = self.step
        if self.step == self.warm_start and self.block:
            self.models[1:] = self.models[0]
            for states in self.states[1:]:
                for name in self.optimizer.states:
                    states[name][:] = self.states[0][name]
        if self.block:
            self.model[:] = self.models[0]

    def _sync(self) -> None:
        """Average the models and filter, as `refimpl.methods.block.bmuf` does."""
        assert self.block is not None
        self.block_start = self.step
        mean = np.empty_like(self.models[0])
        self._sum(self.models, mean)
        mean /= len(self.models)
        filtered = block_update(
            self.model, self.update, mean, self.eta, self.block.zeta, self.block.nesterov
        )
        self.model, self.update, self.models[:] = filtered
        if not self.block.keeps(self.optimizer):
            for states in self.states:
                self.optimizer.reset(states)

    def finish(self) -> np.ndarray:
        """End the run: bring the models together; return the one that stands for them (n,).

        The network is bound to it.
        """
        if self.block and self.block_start < self.step:
            self._sync()
        final = self.model if self.block else self.models[0]
        if not np.isfinite(final).all():
            raise Diverged("the parameters are not finite")
        self._bind(final)
        return final

    # ---------------------------------------------------------------------------- as a state

    def save(self, path: Path) -> None:
        """Write all that the next step depends on, whole or not at all."""
        save_arrays(path, self._state().items())

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        saved = load_arrays(path)
        self.seconds = float(saved.pop("seconds"))
        self.step, self.block_start = (int(saved.pop(name)) for name in ("step", "block_start"))
        for name, array in self._state().items():
            if name in saved:
                array[:] = saved[name]

    def _state(self) -> dict[str, Any]:
        block = {"model": self.model, "update": self.update} if self.block else {}
        states = {
            f"{name}{group}": states[name]
            for group, states in enumerate(self.states)
            for name in self.optimizer.states
        }
        assert not self.optimizer.counters
        return {
            "seconds": np.array(self.seconds),
            "step": np.array(self.step),
            "block_start": np.array(self.block_start),
            "models": self.models,
            "residuals": self.residuals,
            **block,
            **states,
        }
