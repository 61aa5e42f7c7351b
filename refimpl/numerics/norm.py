"""The norm of a vector that is cut into shards, from a few numbers of each.

    norm = sqrt(sum over all shards of gradient^2)

The functions here do one rank's part on local arrays and combine the parts;
`refimpl.collectives.norm` carries the parts between ranks.  There are two forms of the sum.

*Float*: `square_sum` of each shard in float64, added in rank order by `float_norm`.  Another cut
into shards adds in another order, and the norm may differ in its last bits.

*Exact*: the largest |gradient| of all shards fixes a power of two, `exponent`.  Each square, so
scaled to [0, 1], is rounded to a multiple of 2**-SQUARE_BITS and added as an integer.  Rounding
looks at one element alone and integers add in any order, so every cut gives the same bits.

    rank r:   peak_r = peak(g_r)                 then the maximum over ranks
    rank r:   words_r = exact_squares(g_r, peak) then the int64 sum over ranks, element by element
    all:      norm = exact_norm(words, peak)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# A square's resolution, relative to the largest.  A strip of STRIP = 2**14 squares of at most
# 2**SQUARE_BITS each fits in int64; strips are added as two words of 32 bits each.
SQUARE_BITS = 48
STRIP = 1 << 14
WORD = 32


def square_sum(g: np.ndarray, scratch: np.ndarray) -> float:
    """Return the sum of g^2 in float64: strip sums (NumPy's pairwise), strips from the first.

    g (n,) float32 or float64; scratch (STRIP,) float64.
    """
    total = 0.0
    for start in range(0, g.size, STRIP):
        strip = g[start : start + STRIP]
        t = scratch[: strip.size]
        np.copyto(t, strip)
        np.multiply(t, t, out=t)
        total += float(np.add.reduce(t))
    return total


def float_norm(parts: Iterable[float]) -> float:
    """Return the norm, from the `square_sum` of every shard, in rank order."""
    total = 0.0
    for part in parts:  # one by one: the sum() of newer Pythons adds in a way of its own
        total += part
    return math.sqrt(total)


def peak(g: np.ndarray) -> float:
    """Return max |g|; 0 for an empty shard, inf if any element is infinite or NaN."""
    if g.size == 0:
        return 0.0
    high = max(float(np.max(g)), -float(np.min(g)))
    return high if math.isfinite(high) else math.inf


def exponent(top: float) -> int:
    """Return the least e with top <= 2**e, for a finite top > 0.

    >>> exponent(1.0), exponent(1.5), exponent(0.25)
    (0, 1, -2)
    """
    mantissa, power = math.frexp(top)  # top = mantissa * 2**power, 0.5 <= mantissa < 1
    return power - 1 if mantissa == 0.5 else power


def exact_squares(
    g: np.ndarray, top: float, scratch: np.ndarray, integers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return this shard's part of the exact sum of squares, as two int64 words (high, low).

        q = round((g / 2**e)^2 * 2**SQUARE_BITS),   sum of q = high * 2**WORD + low

    ``g`` (n,): float32 or float64.  ``top``: the maximum of `peak` over all shards.  ``scratch``,
    ``integers`` (STRIP,): float64 and int64 work space.
    """
    total = 0
    if 0 < top < math.inf:
        e = exponent(top)
        for start in range(0, g.size, STRIP):
            strip = g[start : start + STRIP]
            t, q = scratch[: strip.size], integers[: strip.size]
            np.copyto(t, strip)
            np.ldexp(t, -e, out=t)
            np.multiply(t, t, out=t)
            np.multiply(t, 2.0**SQUARE_BITS, out=t)
            np.rint(t, out=t)
            np.copyto(q, t, casting="unsafe")
            total += int(np.add.reduce(q))
    return np.array([total >> WORD, total & ((1 << WORD) - 1)], np.int64)


def exact_norm(words: NDArray[np.int64], top: float) -> float:
    """Return the norm, from the sums over all shards of the two words; inf if ``top`` is."""
    if not 0 < top < math.inf:
        return top
    total = (int(words[0]) << WORD) + int(words[1])
    # total / 2**SQUARE_BITS is the sum of squares of g / 2**e, at least 1/4.
    return math.ldexp(math.sqrt(math.ldexp(total, -SQUARE_BITS)), exponent(top))
