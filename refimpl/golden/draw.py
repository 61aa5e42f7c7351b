"""Numbers for inputs: drawn so that they never change, and so that arithmetic on them is exact.

NumPy promises the raw 64 bits of its generators for ever, but not what it makes of them; so only
these are used.  `dyadic` numbers are multiples of a power of two with few digits: their sums, and
sums of their products, need no rounding in float32.  Then any order of summation, and fused
multiply-adds, give the same bits, and a rule ``bits`` asks nothing of a backend but to be right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.numerics.rng import stream


def integers(name: str, low: int, high: int, shape: tuple[int, ...] | int) -> NDArray[np.int64]:
    """Return integers in [low, high), equal names giving equal numbers.

    >>> integers("an example", 0, 10, 4).tolist()
    [8, 2, 3, 8]
    """
    count = int(np.prod(shape, dtype=np.int64))
    raw = stream(0, "golden", name).bit_generator.random_raw(count)
    # The high bits modulo a range that is far below 2**32: as good as uniform.
    return (low + ((raw >> np.uint64(32)) % np.uint64(high - low)).astype(np.int64)).reshape(shape)


def dyadic(
    name: str,
    shape: tuple[int, ...] | int,
    most: float = 2.0,
    unit: float = 0.125,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Return multiples of ``unit`` in [-most, most], without -0.0."""
    steps = round(most / unit)
    return (integers(name, -steps, steps + 1, shape) * unit).astype(dtype)


def rough(
    name: str, shape: tuple[int, ...] | int, most: float = 2.0, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Return numbers in [-most, most) with all their digits: sums of them are rounded."""
    return (integers(name, -(1 << 24), 1 << 24, shape) * (most / (1 << 24))).astype(dtype)
