"""A model whose training is exact: every parameter hangs on a spring.

A micro-batch is one row c of targets, a number for each parameter, and

    loss = 1/2 sum of (w - c)^2             gradient = w - c

or f frames with that same row, and f times the gradient, which is a sum over frames.  One
subtraction for each parameter: no matrix product, nothing to be summed inside a micro-batch.
Yet gradients depend on the parameters, so whoever computes them at the wrong ones (a look-ahead, a
stale shard) gets others.  What is left for a strategy to do wrong is what a strategy does: who
takes which micro-batch, sums, messages, residuals, shards, when the optimizer runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from refimpl import nn


class Spring(nn.Layer):
    """A unit of ``size`` parameters; the row of targets passes through it unchanged."""

    def __init__(self, name: str, place: slice, width: int, initial: np.ndarray) -> None:
        self.name, self.inputs, self.outputs = name, width, width
        self.place, self.initial = place, initial
        shape = (place.stop - place.start,)
        self.parameters = (nn.Parameter("weight", shape, nn.Initial("zeros")),)

    def plan(self, batch: int, inputs: int, dtype: DTypeLike, in_place: bool = False) -> int:
        """Need no workspace."""
        return inputs

    def bind(self, parameters: np.ndarray, gradients: np.ndarray | None = None) -> None:
        """Use these vectors."""
        self.w, self.dw = parameters, gradients

    def initialise(self, parameters: np.ndarray) -> None:
        """Start from the given values."""
        parameters[:] = self.initial

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Keep the targets and hand them on."""
        self.rows = x[:, self.place]
        return x

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray:
        """Set the gradient, f (w - c)."""
        assert self.dw is not None
        self.dw[:] = 0
        for target in self.rows[:1]:
            np.subtract(self.w, target, out=self.dw)
        self.dw *= max(1, len(self.rows))
        return dy


class Loss(nn.SoftmaxCrossEntropy):
    """Stands where a replica has its loss: the springs know their own gradients."""

    def forward(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Keep what came."""
        self.row = logits
        return 0.0

    def backward(self) -> np.ndarray:
        """Hand it back."""
        return self.row


def network(units: list[int], initial: np.ndarray) -> nn.Sequential:
    """Return springs in units of these sizes that start from ``initial`` (sum of units,)."""
    cut = np.concatenate(([0], np.cumsum(units))).tolist()
    springs = [
        Spring(f"unit{i}", slice(a, b), cut[-1], initial[a:b])
        for i, (a, b) in enumerate(zip(cut[:-1], cut[1:], strict=True))
    ]
    made = nn.Sequential(*springs)
    made.plan(1, initial.dtype)
    return made
