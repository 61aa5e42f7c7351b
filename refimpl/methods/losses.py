"""Sums of losses that are the same on every cluster."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Loss sums are added as integers of this resolution, so that they do not depend on the cluster.
LOSS_UNIT = 2.0**-32


class Loss(NamedTuple):
    """A sum of losses in LOSS_UNIT; ``finite``: whether none of them was infinite or NaN."""

    units: int = 0
    finite: bool = True

    def __add__(self, other: Loss) -> Loss:  # type: ignore[override]  # not a tuple's +
        return Loss(self.units + other.units, self.finite and other.finite)

    @classmethod
    def of(cls, loss: float) -> Loss:
        """Return a loss as a sum of one.

        >>> Loss.of(0.5) + Loss.of(float("nan"))
        Loss(units=2147483648, finite=False)
        """
        return cls(round(loss / LOSS_UNIT)) if np.isfinite(loss) else cls(finite=False)
