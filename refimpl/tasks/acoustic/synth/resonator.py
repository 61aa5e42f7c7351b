"""Second-order resonators whose frequency may change at every sample.

A resonator at F hertz of bandwidth W hertz, at sample rate R, is the recursion [1]_

    y[n] = A x[n] + B y[n-1] + C y[n-2]
    C = -exp(-2 pi W / R),  B = 2 exp(-pi W / R) cos(2 pi F / R),  A = 1 - B - C

with unit gain at 0 Hz and poles at radius exp(-pi W / R) and angle 2 pi F / R.  With
coefficients that change at every sample it is a system of linear equations in y, whose
matrix is lower triangular with three diagonals (1, -B, -C): forward substitution *is* the
recursion, and LAPACK's banded triangular solver runs it at the speed of a compiled loop.

.. [1] D. H. Klatt, "Software for a cascade/parallel formant synthesizer", Journal of the
   Acoustical Society of America 67(3), 971-995, 1980.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

Signal = NDArray[np.float64]


def coefficients(frequency: ArrayLike, width: ArrayLike, rate: float) -> tuple[Signal, Signal]:
    """Return the feedback coefficients (B, C) of resonators at these frequencies, all in hertz.

    The pairs (B, C) of stable resonators form a triangle, which is convex: coefficients
    interpolated between stable ones are stable.
    """
    radius = np.exp(-np.pi * np.asarray(width, float) / rate)
    angle = 2 * np.pi * np.asarray(frequency, float) / rate
    return 2 * radius * np.cos(angle), -radius * radius


def resonate(x: Signal, b: Signal, c: Signal) -> Signal:
    """Return y[n] = (1 - b[n] - c[n]) x[n] + b[n] y[n-1] + c[n] y[n-2], starting at rest.

    ``x``, ``b`` and ``c`` are (n,).  About 10 ns per sample.
    """
    return _recursion((1 - b - c) * x, b, c)


def antiresonate(x: Signal, b: Signal, c: Signal) -> Signal:
    """Undo `resonate`: y[n] = (x[n] - b[n] x[n-1] - c[n] x[n-2]) / (1 - b[n] - c[n])."""
    y = x.copy()
    y[1:] -= b[1:] * x[:-1]
    y[2:] -= c[2:] * x[:-2]
    return y / (1 - b - c)


def bandpass(x: Signal, b: Signal, c: Signal) -> Signal:
    """Pass the band of the resonator (b, c) with about unit gain at its peak, and not 0 Hz.

    y[n] = (1 + c[n]) / 2 (x[n] - x[n-2]) + b[n] y[n-1] + c[n] y[n-2]: the zeros at 0 Hz and
    at half the sample rate make it a model of noise from a short front cavity.
    """
    driven = x.copy()
    driven[2:] -= x[:-2]
    return _recursion((1 + c) / 2 * driven, b, c)


def _recursion(driven: Signal, b: Signal, c: Signal) -> Signal:
    """Solve y[n] - b[n] y[n-1] - c[n] y[n-2] = driven[n] for y."""
    diagonals = np.zeros((3, len(driven)), order="F")  # column n: the coefficients of y[n]
    diagonals[0] = 1
    diagonals[1, :-1] = -b[1:]
    diagonals[2, :-2] = -c[2:]
    y, info = lapack.dtbtrs(diagonals, driven, uplo="L", diag="U")
    assert info == 0, f"dtbtrs: argument {-info}"
    return y.reshape(-1)
