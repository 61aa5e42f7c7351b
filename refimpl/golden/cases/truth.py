"""Values with many digits: computed in float64, rounded once, the same on every machine.

Matrix products, exp, log, tanh and Fourier transforms differ in the last bits between libraries
and processors.  So what depends on them is computed in float64 and rounded to float32: the
differences, about 2**-50 of the largest value, vanish, unless a value lies so near the middle
between two float32 numbers that they decide to which it is rounded.  `rounded` refuses such
values; another input must then be drawn.  (The very middle, and what needs no rounding, are
allowed: a float64 number whose last 28 bits are zero comes from arithmetic that did not round.)
What remains is as near to the true value as float32
can be, the same bytes everywhere, and a float32 backend differs from it by its own rounding alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# How far from the middle of two float32 numbers a value must be, relative to the largest of a sum
# with many terms, or to itself.
MARGIN = 2.0**-44


def rounded(x: ArrayLike, sums: bool = True) -> NDArray[np.float32]:
    """Return float64 values as float32, sure that every machine rounds them to the same.

    ``sums``: errors may be as large as the largest value allows; else each value has its own.

    >>> rounded([1.0, 0.1]).tolist()
    [1.0, 0.10000000149011612]
    """
    x = np.asarray(x, np.float64)
    near = x.astype(np.float32)
    step = np.abs(np.spacing(near)).astype(np.float64)
    middle = step / 2 - np.abs(x - near.astype(np.float64))
    scale = np.abs(x).max(initial=0) if sums else np.abs(x)
    risk = (middle > 0) & (x != near) & (middle < MARGIN * scale)
    assert not risk.any(), f"{x[risk]} lie between two float32 numbers: draw other inputs"
    return near


def doubles(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the float32 inputs as float64."""
    return {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in inputs.items()}


def all_rounded(outputs: dict[str, Any], sums: bool = True) -> dict[str, np.ndarray]:
    """Return the float64 outputs as float32; see `rounded`."""
    return {
        n: rounded(a, sums) if np.asarray(a).dtype == np.float64 else np.asarray(a)
        for n, a in outputs.items()
    }
