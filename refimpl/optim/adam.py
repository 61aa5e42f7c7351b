"""Adam, and AdamW.

    g = g * scale + weight_decay * w               L2 form; AdamW: w = w - lr * weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2
    w = w - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

t counts steps from 1.  Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015,
algorithm 1; Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refimpl.optim.base import Optimizer
from refimpl.support.errors import require


class Adam(Optimizer):
    """Steps of about lr per element, by estimates of the gradient's first two moments.

    Parameters
    ----------
    beta1, beta2 : float
        Decay of the averages m and v, in [0, 1).
    eps : float
        Added to the square root, outside of it.
    weight_decay : float
        Strength of the weight decay.
    decoupled : bool
        Decay the weights themselves (AdamW) and not through the gradient (L2).

    The state ``step`` is a plain int, counted by `advance`.
    """

    states = ("first", "second")
    counters = ("step",)
    lasting = True

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            require(0 <= beta < 1, f"{name} {beta}: must be at least 0 and less than 1")
        require(eps > 0, f"eps {eps}: must be greater than 0")
        require(weight_decay >= 0, f"weight decay {weight_decay}: must be at least 0")
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.weight_decay, self.decoupled = weight_decay, decoupled

    def advance(self, states: dict[str, Any]) -> None:
        """Count a step: call once before the `update`s of a step, however many shards."""
        states["step"] += 1

    def update(
        self, w: np.ndarray, g: np.ndarray, states: dict[str, Any], lr: float, scale: float = 1.0
    ) -> None:
        step = states["step"]
        assert step >= 1, "advance() is called before the updates of a step"
        lr, scale, beta1, beta2 = float(lr), float(scale), self.beta1, self.beta2
        decay = 0.0 if self.decoupled else self.weight_decay
        keep = 1 - lr * self.weight_decay if self.decoupled else 1.0
        rate = lr / (1 - beta1**step)
        root = 1 / math.sqrt(1 - beta2**step)
        strips = self._strips(w, g, states)
        for w, g, m, v, d, t in strips:
            np.multiply(g, scale, out=d)  # d = g * scale
            if decay:
                np.multiply(w, decay, out=t)
                np.add(d, t, out=d)  # d = d + decay * w
            if keep != 1.0:
                np.multiply(w, keep, out=w)  # w = w - lr * decay * w

            np.multiply(m, beta1, out=m)
            np.multiply(d, 1 - beta1, out=t)
            np.add(m, t, out=m)  # m = beta1 * m + (1 - beta1) * d

            np.multiply(v, beta2, out=v)
            np.multiply(d, d, out=t)
            np.multiply(t, 1 - beta2, out=t)
            np.add(v, t, out=v)  # v = beta2 * v + (1 - beta2) * d^2

            np.sqrt(v, out=t)
            np.multiply(t, root, out=t)
            np.add(t, self.eps, out=t)  # t = sqrt(v / (1 - beta2^step)) + eps
            np.divide(m, t, out=d)
            np.multiply(d, rate, out=d)
            np.subtract(w, d, out=w)  # w = w - lr / (1 - beta1^step) * m / t
