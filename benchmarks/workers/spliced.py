"""Frames that stand beside their neighbours in memory, for a third less time of a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.examples import Frames

PIECE = 4096  # frames that are spliced at a time


class Spliced(Frames):
    """What `Frames` gives, to the bit, from 2c + 1 times the memory: splicing is done once."""

    def __init__(self, frames: Frames) -> None:
        super().__init__(frames.features, frames.offsets, frames.context)
        self.labels = frames.labels
        self._whole = np.empty((frames.count, frames.inputs), np.float32)
        for first in range(0, frames.count, PIECE):
            some = self._whole[first : first + PIECE]
            frames.take(np.arange(first, first + len(some)), some)

    def take(self, index: NDArray[np.int64], x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Write the inputs of examples `index` into x (B, inputs) and their states into y (B,)."""
        np.take(self._whole, index, axis=0, out=x, mode="clip")
        if y is not None:
            np.take(self.labels, index, out=y, mode="clip")
