"""The loss of a classifier, with its workspace."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.nn import functional
from refimpl.support.errors import require


class SoftmaxCrossEntropy:
    """The loss of a classifier: the SUM over rows of -log softmax(logits)[label], in nats."""

    def plan(self, batch: int, classes: int, dtype: DTypeLike) -> None:
        """Allocate workspaces for up to ``batch`` rows of ``classes`` logits."""
        self._out = np.zeros((batch, classes), dtype)
        self._all = functional.Rows.allocate(batch, classes, dtype)

    def forward(self, logits: np.ndarray, labels: NDArray[np.int64]) -> float:
        """Return the sum of losses for logits (B, C) and labels (B,) int64 in range(C).

        Raises `UserError` if a label is no class.
        """
        batch, classes = logits.shape
        low, high = labels.min(initial=0), labels.max(initial=0)
        require(
            low >= 0 and high < classes,
            f"label {low if low < 0 else high} is no class of a network of {classes} outputs: "
            f"labels must be 0 to {classes - 1}",
        )
        self._dlogits, self._rows = self._out[:batch], self._all.head(batch)
        self._fresh = True
        return functional.softmax_cross_entropy(logits, labels, self._dlogits, self._rows)

    def backward(self) -> np.ndarray:
        """Return softmax - onehot (B, C), in the workspace: once after each forward."""
        assert self._fresh, "backward is called once after each forward"
        self._fresh = False
        functional.softmax_cross_entropy_backward(self._dlogits, self._rows)
        return self._dlogits
