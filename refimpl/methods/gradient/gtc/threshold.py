"""Gradient threshold compression: send +-tau where the residual is beyond it.

Each rank keeps a residual r, one number per parameter, zero at the start.  In every step, with
the gradient summed over this worker's frames:

    r = r + gradient
    where r >  tau:  send +tau,  r = r - tau
    where r < -tau:  send -tau,  r = r + tau

At most one tau per value and step is sent; what is beyond it stays in r, and so does everything
below it.  Nothing is lost: sent + r after = r before + gradient, exactly in dyadic arithmetic.

The comparison is strict: a residual of exactly tau is not sent.

An entry of a message is one 32-bit *word*, the index and the sign of what is sent:

    word = index << 1 | (1 for +tau, 0 for -tau)           index < 2**31

Words stand in rising order of their indices, and each index at most once.

References: N. Strom, "Scalable distributed DNN training using commodity GPU cloud computing",
Interspeech 2015 (the method); the word is that of LBANN's ``lbann_quantizer``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.methods.gradient.gtc.bits import pack, set_bits
from refimpl.support.errors import require

# An index has 31 bits.
MOST = 1 << 31

# Bytes of residual per strip: they, the gradient's and two masks stay in a core's second-level
# cache (1 MB) while four operations pass over them, each long enough for its call not to count.
STRIP_BYTES = 1 << 18

# Values per span: what is beyond the threshold is looked up and sent span by span, so that the
# two dozen calls that this takes do not count either.  A multiple of a strip's values.
SPAN = 1 << 21

# 0.5 ** (1/20), as digits so that every machine has the same: 20 steps halve or double tau.
FACTOR = 0.9659363289248456


def plain(
    residual: np.ndarray, gradient: np.ndarray, tau: float
) -> tuple[NDArray[np.uint32], np.ndarray]:
    """Return the message as words, and the new residual: the whole method.

    Residual and gradient (n,), float32 or float64, are not modified; tau is as for `encode`,
    which does the same, to the bit, in one pass over memory.

    >>> plain(np.array([0.0, 0.5, 0.0, -1.0]), np.array([1.0, 0.75, 5.0, -0.25]), tau=1.0)
    (array([3, 5, 6], dtype=uint32), array([ 1.  ,  0.25,  4.  , -0.25]))
    """
    total = residual + gradient
    beyond = np.abs(total) > tau
    sent = np.where(beyond, np.copysign(tau, total), np.zeros_like(total))
    words = beyond.nonzero()[0] << 1 | (sent[beyond] > 0)
    return words.astype(np.uint32), total - sent


def encode(
    residual: np.ndarray, gradient: np.ndarray, tau: float, words: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Add the gradient to the residual, take out what is sent, and return that as words.

    What `plain` does, in place.

    Parameters
    ----------
    residual : (n,) float32 or float64
        What this rank still owes; brought up to date in place.
    gradient : (n,) array of the same dtype
        Not modified.  A NaN is never sent; it stays in the residual for good.
    tau : float
        Positive, and a value of that dtype (see `rounded`).
    words : (m,) uint32, m >= n
        Memory for the message.  Only as much as is sent is written, so an ``np.empty`` of
        length n costs no more resident memory than the largest message.

    Returns
    -------
    (entries,) uint32
        The message, a view of ``words``.

    Notes
    -----
    One pass in strips that fit the cache; what is allocated is of the size of a strip, or of what
    is sent.

    Examples
    --------
    >>> r, words = np.array([0.0, 0.5, 0.0, -1.0]), np.empty(4, np.uint32)
    >>> encode(r, np.array([1.0, 0.75, 5.0, -0.25]), 1.0, words)
    array([3, 5, 6], dtype=uint32)
    >>> r  # the first value was exactly tau: it stays
    array([ 1.  ,  0.25,  4.  , -0.25])
    """
    assert residual.shape == gradient.shape, (residual.shape, gradient.shape)
    assert residual.dtype == gradient.dtype, (residual.dtype, gradient.dtype)
    assert words.size >= residual.size <= MOST, (words.size, residual.size)
    assert tau == rounded(tau, residual.dtype), tau
    masks = np.empty((2, STRIP_BYTES // residual.itemsize), np.bool_)
    sent = 0
    for start in range(0, residual.size, SPAN):
        r = residual[start : start + SPAN]
        index = set_bits(_beyond(r, gradient[start : start + SPAN], tau, masks))
        value = r[index]
        plus = value > 0
        value -= np.copysign(tau, value)
        r[index] = value

        word = words[sent : sent + index.size]
        word[:] = index
        word += start
        word <<= 1
        word |= plus
        sent += index.size
    return words[:sent]


def _beyond(
    residual: np.ndarray, gradient: np.ndarray, tau: float, masks: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Add the gradient to the residual, and return as bits where it is beyond +-tau."""
    strip = masks.shape[1]
    bits = np.zeros(-(-residual.size // 32) * 4, np.uint8)
    for start in range(0, residual.size, strip):
        r = residual[start : start + strip]
        below, outside = masks[:, : r.size]
        r += gradient[start : start + strip]
        np.less(r, -tau, out=below)
        np.greater(r, tau, out=outside)
        np.logical_or(outside, below, out=outside)
        packed = pack(outside)
        bits[start // 8 :][: packed.size] = packed
    return bits


def indices(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the index of each entry."""
    return words >> np.uint32(1)


def signs(words: NDArray[np.uint32]) -> NDArray[np.int8]:
    """Return the sign of each entry, +1 or -1.

    >>> signs(np.array([3, 6], np.uint32))
    array([ 1, -1], dtype=int8)
    """
    sign = (words & 1).astype(np.int8)
    sign <<= 1
    sign -= 1
    return sign


class Counts:
    """The sum of the messages of up to ``terms`` ranks.

    Every entry is +tau or -tau with one tau for all, so the sum is (plus - minus) tau: the
    entries are *counted*, in integers, and multiplied by tau once, at the end.  The sum is
    therefore exact but for one rounding, and does not depend on the order of the messages.

    >>> counts, out = Counts(4, terms=2), np.empty(4, np.float32)
    >>> for words in ([3, 5], [3, 4]):  # +1 +2; +1 -2
    ...     counts.add(np.array(words, np.uint32))
    >>> counts.total(0.5, out)
    >>> out
    array([0., 1., 0., 0.], dtype=float32)
    """

    def __init__(self, n: int, terms: int) -> None:
        smallest = [t for t in (np.int8, np.int16, np.int32) if terms <= np.iinfo(t).max]
        self._count: np.ndarray = np.zeros(n, smallest[0])

    def add(self, words: NDArray[np.uint32]) -> None:
        """Add one message."""
        # Safe only because an index occurs once in a message: NumPy adds once per index.
        self._count[indices(words)] += signs(words)

    def total(self, tau: float, out: np.ndarray) -> None:
        """Set ``out`` (n,) to the sum in units of the gradient, and begin a new one.

        A sum of zero is +0.0, never -0.0.
        """
        assert out.shape == self._count.shape
        strip = STRIP_BYTES // out.itemsize
        for start in range(0, out.size, strip):
            count, part = self._count[start : start + strip], out[start : start + strip]
            part[:] = count
            part *= tau
        self.clear()

    def clear(self) -> None:
        """Forget what was added."""
        self._count.fill(0)


def rounded(tau: float, dtype: DTypeLike) -> float:
    """Return tau rounded to a gradient's dtype.

    The threshold that is compared with, subtracted from the residual and put in the message is
    one and the same number.
    """
    return float(np.array(tau, dtype))


def adapted(tau: float, entries: int, values: int, target: float, dtype: DTypeLike) -> float:
    """Return the next step's tau, so that the density moves towards ``target``.

        entries / values > target:  tau / FACTOR
        entries / values < target:  tau * FACTOR               FACTOR = 0.5 ** (1/20)

    ``entries`` of all ranks and the ``values`` they could have been are known to all of them
    after the exchange, from the headers, so that all go on with the same tau.

    >>> round(adapted(8.0, entries=3, values=1000, target=0.002, dtype=np.float64), 4)
    8.2821
    """
    if entries > target * values:
        tau = tau / FACTOR
    elif entries < target * values:
        tau = tau * FACTOR
    limits = np.finfo(dtype)
    return rounded(min(max(tau, float(limits.tiny)), float(limits.max)), dtype)


def clip(residual: np.ndarray, limit: float) -> None:
    """Limit the residual to +-limit, in place; what is beyond is forgotten.

    A gradient that stays larger than tau makes the residual grow without end, and its sign
    would be sent long after the gradient has turned.
    """
    np.clip(residual, -limit, limit, out=residual)


def peak(residual: np.ndarray) -> float:
    """Return max |residual|; 0 where there is none, NaN if any is."""
    if residual.size == 0:
        return 0.0
    return max(float(residual.max()), -float(residual.min()))


def check_tau(tau: float, n: int) -> None:
    """Refuse a threshold that is not one, and vectors that 31 bits cannot index."""
    require(
        math.isfinite(tau) and tau > 0,
        f"tau {tau}: the threshold must be a positive, finite number",
    )
    require(
        n <= MOST,
        f"{n:,} parameters in one message: an index has 31 bits, so at most {MOST:,}; shard the "
        "model over more ranks",
    )
