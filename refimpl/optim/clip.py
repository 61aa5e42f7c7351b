"""Clipping by the global norm, of a gradient that is cut into shards.

    coefficient = min(1, max_norm / norm)

The norm is that of all shards together: `refimpl.collectives.norm`.
"""

from __future__ import annotations

import math

from refimpl.support.errors import Diverged


def coefficient(norm: float, max_norm: float) -> float:
    """Return what the gradient is multiplied with: min(1, max_norm / norm), 1 for norm 0.

    Raises `Diverged` if the norm is not finite; it is the same on all ranks, and so is the error.

    >>> coefficient(norm=4.0, max_norm=1.0), coefficient(0.5, 1.0), coefficient(0.0, 1.0)
    (0.25, 1.0, 1.0)
    """
    if not math.isfinite(norm):
        raise Diverged(
            f"the norm of the gradient is {norm}: training diverges; a lower --lr may help"
        )
    return min(1.0, max_norm / norm) if norm > 0 else 1.0
