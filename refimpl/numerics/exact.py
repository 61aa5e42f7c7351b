"""Sums that do not depend on the order of their terms.

Floating-point addition is not associative: (a + b) + c and a + (b + c) differ in the last bit,
so a float sum over ranks depends on who adds first.  Integer addition is associative.  With
``--reduction exact`` every term is turned into 64-bit fixed point before it is added::

    q = round(x * 2**FRACTION_BITS)          x = q / 2**FRACTION_BITS

and the sum of the q is the same for every algorithm, every cut of the world and serial.  Terms
are limited so that no sum can leave int64: what could overflow is an error, never a wrap.

Range and resolution are those of one scale for all.  Of m terms each may have up to 2**22 / m.
Each is wrong by at most 2**-41, whatever its own size, so that smaller ones vanish.  A sum up to
2**13 has 53 bits and is rounded once, to float32; beyond that, to float64 first.  What float64 has
beyond these digits is lost:

>>> fixed, q, back = FixedPoint(terms=1), np.zeros(3, np.int64), np.zeros(3)
>>> fixed.encode(np.array([1 / 3, 1e-12, 4e-13]), q)
>>> fixed.decode(q, back)
>>> bool(abs(back - [1 / 3, 1e-12, 4e-13]).max() <= 2**-41), back.tolist()[2]
(True, 0.0)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import Diverged

# Resolution 2**-40 (about 1e-12), range of a sum +-2**22: room for gradients summed over a
# million frames beside weights of 1e-6, half the digits of int64 on each side.
FRACTION_BITS = 40

# Elements turned at a time: three float64 strips of this length stay in a core's cache.
PIECE = 1 << 14


class Faults(Protocol):
    """Who hears of numbers instead of an error, so that ranks go on together."""

    def tell(self, what: str) -> None:
        """Hear of what cannot be added."""

    def notice(self, what: str) -> None:
        """Hear of what is added as nothing."""


class FixedPoint:
    """Turns float arrays into int64 fixed point and back, for sums of at most ``terms`` arrays.

    >>> fixed = FixedPoint(terms=3)
    >>> q = np.zeros(2, np.int64)
    >>> for x in ([0.5, 1e-3], [1e6, 2e-3], [-1e6, 4e-3]):
    ...     fixed.add(np.array(x, np.float32), q)
    >>> out = np.zeros(2, np.float32)
    >>> fixed.decode(q, out)
    >>> out.tolist()
    [0.5, 0.007000000216066837]
    """

    def __init__(self, terms: int, what: str = "a gradient", faults: Faults | None = None) -> None:
        self.limit = 2.0**62 / terms
        self.what, self.faults = what, faults
        self._scaled = np.empty(PIECE)
        self._integer = np.empty(PIECE, np.int64)

    def _turned(self, x: np.ndarray, of: str = "") -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Yield pieces of x: where, and round(x * 2**FRACTION_BITS), half to even, in scratch."""
        most = 0.0
        for start in range(0, x.size, PIECE):
            piece = slice(start, start + PIECE)
            scaled, integer = self._scaled[: x[piece].size], self._integer[: x[piece].size]
            np.multiply(x[piece], 2.0**FRACTION_BITS, out=scaled)
            # min and max are NaN if any element is, and a comparison with NaN is false.
            largest = max(scaled.max(), -scaled.min())
            if not largest <= self.limit:
                self._refuse(x[piece], of)
                scaled.fill(0)
            most = max(most, largest)
            np.rint(scaled, out=scaled)
            np.copyto(integer, scaled, casting="unsafe")
            yield piece, integer
        if 0 < most <= 0.5 and self.faults is not None:
            self.faults.notice(
                f"{self.what}{of} was below 2^-41 everywhere, which --reduction exact adds as "
                "zero: an optimizer that divides by its size needs --reduction float"
            )

    def _refuse(self, x: np.ndarray, of: str) -> None:
        """Tell of a piece that cannot be added, or raise `Diverged`."""
        worst = np.nanmax(np.abs(x)) if np.isfinite(x).all() else "not finite"
        most = self.limit / 2.0**FRACTION_BITS
        why = (
            f"{self.what}{of} is out of the range of --reduction exact (it is {worst}; at "
            f"most {most:.6g} can be added without overflow)"
        )
        if self.faults is None:
            raise Diverged(f"{why}: training diverges, or needs --reduction float")
        self.faults.tell(why)

    def encode(self, x: np.ndarray, out: NDArray[np.int64], of: str = "") -> None:
        """Set ``out`` to x in fixed point; x (n,) float, out (n,) int64.

        Raises `Diverged` if an element is NaN, infinite, or so large that the sum could overflow;
        with ``faults`` that is told, with ``of``, and zeros stand for the piece.
        """
        for piece, integer in self._turned(x, of):
            out[piece] = integer

    def add(self, x: np.ndarray, total: NDArray[np.int64]) -> None:
        """Add x in fixed point to ``total``, in place.  Errors as `encode`."""
        for piece, integer in self._turned(x):
            total[piece] += integer

    def decode(self, q: NDArray[np.int64], out: np.ndarray) -> None:
        """Set ``out`` to q / 2**FRACTION_BITS, rounded to out's dtype from float64."""
        for start in range(0, q.size, PIECE):
            piece = slice(start, start + PIECE)
            scaled = self._scaled[: q[piece].size]
            np.multiply(q[piece], 2.0**-FRACTION_BITS, out=scaled)
            out[piece] = scaled


# Every finite float64 is a whole number of 2**-LEAST, of at most LARGEST bits.
LEAST = 1074
LARGEST = LEAST + 1024


def units(x: float) -> int:
    """Return x / 2**-LEAST, for a finite x: whole numbers add to the same in any order.

    >>> from_units(sum(map(units, [1e300, 0.1, -1e300])))
    0.1
    """
    numerator, denominator = x.as_integer_ratio()
    return numerator * ((1 << LEAST) // denominator)


def from_units(total: int) -> float:
    """Return the float64 next to total 2**-LEAST; what `math.fsum` gives of the terms."""
    return total / (1 << LEAST)
