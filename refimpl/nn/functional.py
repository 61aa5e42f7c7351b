"""Forward and backward rules as pure functions, each line beside its equation.

Rows are examples: x is (B, inputs), y and dy are (B, outputs).  ``dy`` is the derivative of the
loss by y.  Results go to arrays that the caller owns (``out``, ``dx``, ``dw``, ``db``), so nothing
is allocated; arrays are C-contiguous and of one floating dtype, else BLAS would work on copies.
Gradients of parameters are SUMS over rows, and are overwritten, not added to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray


def affine(x: np.ndarray, w: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Set ``out`` (B, outputs) to x w + b, with w (inputs, outputs) and b (outputs,)."""
    np.matmul(x, w, out=out)  # y = x w + b
    np.add(out, b, out=out)


def affine_backward(
    x: np.ndarray,
    w: np.ndarray,
    dy: np.ndarray,
    dw: np.ndarray,
    db: np.ndarray,
    dx: np.ndarray | None = None,
) -> None:
    """Set the derivatives of `affine`; dx (B, inputs) is left out where it is None.

    Products are summed in the order of the BLAS; db row after row from the first, but pairwise, as
    NumPy does, where there is one output.
    """
    np.matmul(x.T, dy, out=dw)  # dL/dw = x' dy
    np.add.reduce(dy, axis=0, out=db)  # dL/db = sum of the rows of dy
    if dx is not None:
        np.matmul(dy, w.T, out=dx)  # dL/dx = dy w'


def relu(x: np.ndarray, out: np.ndarray) -> None:
    """Set ``out`` to max(x, 0), element by element; ``out`` may be x."""
    np.maximum(x, 0, out=out)


def relu_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """Set ``dx`` to dy where y > 0, else 0 (also at 0, where the derivative is a choice)."""
    np.greater(y, 0, out=dx, casting="unsafe")  # truth as 1.0 or 0.0
    np.multiply(dx, dy, out=dx)


def sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    """Set ``out`` to 1 / (1 + exp(-x)); ``out`` may be x."""
    with np.errstate(over="ignore"):  # exp(-x) = inf for very negative x: y = 0, as it should
        np.negative(x, out=out)
        np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)


def sigmoid_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """Set ``dx`` to dy y (1 - y)."""
    np.subtract(1, y, out=dx)
    np.multiply(dx, y, out=dx)
    np.multiply(dx, dy, out=dx)


def tanh(x: np.ndarray, out: np.ndarray) -> None:
    """Set ``out`` to tanh(x); ``out`` may be x."""
    np.tanh(x, out=out)


def tanh_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """Set ``dx`` to dy (1 - y^2)."""
    np.multiply(y, y, out=dx)
    np.subtract(1, dx, out=dx)
    np.multiply(dx, dy, out=dx)


class Rows(NamedTuple):
    """Work arrays of `softmax_cross_entropy`, one entry per row."""

    top: np.ndarray  # (B, 1) the largest logit
    total: np.ndarray  # (B, 1) sum of exp(z - top)
    own: np.ndarray  # (B,) the entry at the label
    place: np.ndarray  # (B,) where that entry is in the flattened array, int64
    first: np.ndarray  # (B,) where the row starts in it, int64, constant
    loss: np.ndarray  # (B,) -log p[label], float64

    @classmethod
    def allocate(cls, batch: int, classes: int, dtype: DTypeLike) -> Rows:
        """Return work arrays for up to ``batch`` rows."""
        return cls(
            np.zeros((batch, 1), dtype),
            np.zeros((batch, 1), dtype),
            np.zeros(batch, dtype),
            np.zeros(batch, np.int64),
            np.arange(batch, dtype=np.int64) * classes,
            np.zeros(batch),
        )

    def head(self, batch: int) -> Rows:
        """Return views of the first ``batch`` rows."""
        return Rows(*[array[:batch] for array in self])


def softmax_cross_entropy(
    logits: np.ndarray, labels: NDArray[np.int64], out: np.ndarray, rows: Rows
) -> float:
    r"""Set ``out`` to softmax(logits) and return the SUM over rows of the cross-entropy.

    .. math:: p_i = e^{z_i - m} / s, \quad s = \sum_j e^{z_j - m}, \quad m = \max_j z_j

    .. math:: -\log p_{label} = \log s - (z_{label} - m)

    exp is never given a positive number, so it cannot overflow, and the loss is finite where p
    itself rounds to 0.  The losses of the rows are float64 and their sum is correctly rounded
    (`math.fsum`), so it does not depend on the order of rows.

    Parameters
    ----------
    logits : (B, C) array
        z.  Not modified.
    labels : (B,) int64 array
        In range(C); the caller has checked.
    out : (B, C) array
        p afterwards.
    rows : Rows
        Work arrays for exactly B rows.

    Returns
    -------
    float
        In nats; 0.0 for B = 0.
    """
    np.maximum.reduce(logits, axis=1, keepdims=True, out=rows.top)
    np.subtract(logits, rows.top, out=out)  # z - m
    np.add(rows.first, labels, out=rows.place)
    out.reshape(-1).take(rows.place, out=rows.own, mode="clip")  # "raise" would make a copy
    np.exp(out, out=out)
    np.add.reduce(out, axis=1, keepdims=True, out=rows.total)
    np.divide(out, rows.total, out=out)  # p = exp(z - m) / s

    np.copyto(rows.loss, rows.total[:, 0])
    np.log(rows.loss, out=rows.loss)
    np.subtract(rows.loss, rows.own, out=rows.loss)  # log s - (z[label] - m)
    return math.fsum(rows.loss)


def softmax_cross_entropy_backward(out: np.ndarray, rows: Rows) -> None:
    """Turn p in ``out`` into the derivative by the logits, p - onehot(label), in place."""
    flat = out.reshape(-1)
    flat.take(rows.place, out=rows.own, mode="clip")
    np.subtract(rows.own, 1, out=rows.own)
    flat[rows.place] = rows.own


def errors(logits: np.ndarray, labels: NDArray[np.int64]) -> int:
    """Return in how many rows the largest logit is not the label's (ties: the first counts).

    >>> errors(np.array([[0.0, 2.0], [3.0, 1.0], [1.0, 1.0]]), np.array([1, 1, 0]))
    1
    """
    return int(np.count_nonzero(np.argmax(logits, axis=1) != labels))
