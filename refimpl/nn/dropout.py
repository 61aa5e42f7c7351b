"""Dropout: values left out at random, the same ones wherever a micro-batch is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from refimpl.nn.layers import Layer, MicroBatch
from refimpl.numerics.rng import stream
from refimpl.support.errors import brief, require


class Dropout(Layer):
    """y = x m / (1 - rate) in training; m is 0 with probability ``rate``, else 1.

    Outside of training y = x, which is the mean of that.  m is drawn by the name (seed, layer,
    step, micro-batch): one rank with several micro-steps and several ranks with one each leave out
    the same values, in float32 and in float64.

    ``name`` is unique among the layers that draw.  B * inputs numbers are drawn, from a counter
    generator that starts anew for each micro-batch.
    """

    draws = True

    def __init__(self, name: str, rate: float, seed: int) -> None:
        require(isinstance(name, str), f"a layer is named {brief(name)}: a text is needed")
        require(
            isinstance(rate, (int, float, np.number)) and 0 <= rate < 1,
            f"layer {name!r} drops a share of {brief(rate)}: a number from 0 up to 1, without 1, "
            "is needed",
        )
        require(
            isinstance(seed, (int, np.integer)),
            f"layer {name!r} has the seed {brief(seed)}: a whole number is needed",
        )
        self.name, self.rate, self.seed = name, float(rate), int(seed)

    def plan(self, batch: int, inputs: int, dtype: DTypeLike, in_place: bool = False) -> int:
        self._drawn = np.zeros((batch, inputs), np.float32)
        self._kept = np.zeros((batch, inputs), bool)
        self._own = None if in_place else np.zeros((batch, inputs), dtype)
        self._dx = np.zeros((batch, inputs), dtype)
        return inputs

    def forward(self, x: np.ndarray) -> np.ndarray:
        if self._own is None:
            return x
        own = self._own[: len(x)]
        own[:] = x  # the layer above may write over what it is given, and x is somebody else's
        return own

    def train(self, x: np.ndarray, batch: MicroBatch) -> np.ndarray:
        drawn, kept = self._drawn[: len(x)], self._kept[: len(x)]
        stream(self.seed, "dropout", self.name, *batch).random(out=drawn, dtype=np.float32)
        np.greater_equal(drawn, self.rate, out=kept)
        return self._masked(x, x if self._own is None else self._own[: len(x)])

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        return self._masked(dy, self._dx[: len(dy)]) if input_gradient else None

    def _masked(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        np.multiply(x, x.dtype.type(1 / (1 - self.rate)), out=out)
        return np.multiply(out, self._kept[: len(x)], out=out)
