"""Frames as training examples: number i is frame i and its neighbours, and its HMM state.

Features are kept as they are, (frames, bands), and spliced when they are taken; spliced ones
would need 2 * context + 1 times the memory.  Which utterance a frame is in is looked up, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Frames:
    """The frames of some utterances, one after the other.

    The network's input for frame i is the 2c + 1 frames i - c ... i + c, oldest first; beyond
    the utterance's edges its first or last frame is repeated.  For c = 1 and an utterance of
    the frames a b c:

        i = 0:  a a b      i = 1:  a b c      i = 2:  b c c

    ``features`` (count, bands).  ``offsets`` (utterances + 1,): utterance u has frames offsets[u]
    to offsets[u + 1].  ``labels`` (count,): the state of each frame; -1 as long as it is unknown.
    Replaced by re-alignment, never written: exact ones are shared.  ``inputs``: (2c + 1) * bands,
    the width of a spliced frame.
    """

    def __init__(self, features: np.ndarray, offsets: np.ndarray, context: int) -> None:
        assert features.dtype == np.float32 and features.flags.c_contiguous
        assert offsets[-1] == len(features)
        self.features, self.offsets, self.context = features, offsets, context
        self.count, self.bands = features.shape
        self.width = 2 * context + 1
        self.inputs = self.width * self.bands
        self.labels: NDArray[np.int64] = np.broadcast_to(np.int64(-1), (self.count,))

        self._plan(0)

    def _plan(self, batch: int) -> None:
        self._edges = np.empty((2, batch), dtype=np.int64)
        self._columns = np.empty((self.width, batch), dtype=np.int64)
        self._rows = np.empty((batch, self.width), dtype=np.int64)
        self._spliced = np.empty((0, self.width, self.bands), dtype=np.float32)

    def take(self, index: NDArray[np.int64], x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Write the inputs of examples `index` into x and their states into y.

        Allocates a number or two per example; more only if `index` is longer than ever before.

        ``index`` (B,): numbers in range(count), in any order.  ``x`` (B, inputs): written.  ``y``
        (B,): written.
        """
        batch = len(index)
        if batch > len(self._rows):
            self._plan(batch)
        rows, columns = self._rows[:batch], self._columns[:, :batch]
        first, last = self._edges[:, :batch]
        # mode="clip" lets NumPy write straight into `out`; no index is ever out of range.
        behind = np.searchsorted(self.offsets, index, side="right")  # the next utterance's number
        np.take(self.offsets, behind, out=last, mode="clip")
        last -= 1
        np.take(self.offsets, behind - 1, out=first, mode="clip")
        # Column by column: broadcasting over both axes, NumPy would allocate buffers.
        for shift, column in enumerate(columns, start=-self.context):
            np.add(index, shift, out=column)
            np.maximum(column, first, out=column)
            np.minimum(column, last, out=column)
        np.copyto(rows, columns.T)
        if x.dtype == np.float32:
            spliced = x.reshape(batch, self.width, self.bands)
            np.take(self.features, rows, axis=0, out=spliced, mode="clip")
        else:
            if batch > len(self._spliced):
                self._spliced = np.empty((batch, self.width, self.bands), dtype=np.float32)
            spliced = self._spliced[:batch]
            np.take(self.features, rows, axis=0, out=spliced, mode="clip")
            np.copyto(x, spliced.reshape(x.shape))
        if y is not None:
            np.take(self.labels, index, out=y, mode="clip")
