"""Stochastic gradient descent: plain, with momentum, with Nesterov's momentum.

    g = g * scale + weight_decay * w
    v = momentum * v + g
    w = w - lr * v                                 momentum
    w = w - lr * (g + momentum * v)                Nesterov

This is PyTorch's convention (dampening 0): the velocity is in units of the gradient and the
learning rate multiplies it when it is used.  The other one, v = momentum * v - lr * g; w = w + v,
takes the same steps while lr is constant, and differs when it changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.optim.base import Optimizer
from refimpl.support.errors import require


class SGD(Optimizer):
    """Gradient descent with momentum.

    ``momentum``: in [0, 1).  With 0 there is no state.  ``nesterov``: look ahead along the
    velocity.  ``weight_decay``: adds weight_decay * w to the gradient (L2), after ``scale``.

    >>> sgd, w = SGD(momentum=0.5), np.array([1.0])
    >>> states = sgd.allocate(1, w.dtype)
    >>> for _ in range(2):
    ...     sgd.update(w, np.array([4.0]), states, lr=0.125, scale=0.5)
    >>> w  # 1 - 0.125 * 2 - 0.125 * 3
    array([0.375])
    """

    def __init__(
        self, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        require(0 <= momentum < 1, f"momentum {momentum}: must be at least 0 and less than 1")
        require(weight_decay >= 0, f"weight decay {weight_decay}: must be at least 0")
        require(momentum > 0 or not nesterov, "nesterov needs a momentum greater than 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.states = ("momentum",) if momentum else ()

    def update(
        self, w: np.ndarray, g: np.ndarray, states: dict[str, Any], lr: float, scale: float = 1.0
    ) -> None:
        # Python floats do not widen float32 arrays; NumPy's float64 scalars would.
        lr, scale, mu, decay = float(lr), float(scale), self.momentum, self.weight_decay
        strips = self._strips(w, g, states)
        for w, g, *velocity, d, t in strips:
            np.multiply(g, scale, out=d)  # d = g * scale
            if decay:
                np.multiply(w, decay, out=t)
                np.add(d, t, out=d)  # d = d + decay * w
            if velocity:
                v = velocity[0]
                np.multiply(v, mu, out=v)
                np.add(v, d, out=v)  # v = mu * v + d
                if self.nesterov:
                    np.multiply(v, mu, out=t)
                    np.add(d, t, out=d)  # d = d + mu * v
                else:
                    d = v
            np.multiply(d, lr, out=t)
            np.subtract(w, t, out=w)  # w = w - lr * d
