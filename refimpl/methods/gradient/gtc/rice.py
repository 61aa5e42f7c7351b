"""Golomb-Rice codes: how far it is from one entry to the next, in about as few bits as it takes.

    gap = quotient * 2**c + remainder      the remainder in c bits, the quotient as zeros and a one

All signs come first, then all remainders, then all quotients, so that each plane can be written
and read at once.  `plain` is the format; `write` and `read` do the same for long messages.  In
code c is `k`.

Reference: S. W. Golomb, "Run-length encodings", IEEE Trans. Information Theory 12(3), 1966.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc.bits import filled, room
from refimpl.methods.gradient.gtc.header import Header, MessageError
from refimpl.methods.gradient.gtc.threshold import indices

# Entries whose remainders are turned into bits, or back, at a time; a multiple of 8, so that a
# piece fills whole bytes.
PIECE = 1 << 16


def plain(words: NDArray[np.uint32], k: int) -> bytes:
    """Return the body of a message: its three planes, one entry after another.

    >>> plain(np.array([5, 8, 23], np.uint32), k=2).hex(" ")  # gaps 2, 1, 6
    'a0 98 d0'
    """
    signs = remainders = quotients = ""
    after = 0  # the index after the entry before
    for word in words.tolist():
        gap, after = (word >> 1) - after, (word >> 1) + 1
        signs += f"{word & 1}"
        remainders += f"{gap % 2**k:0{k}b}" if k else ""
        quotients += "0" * (gap >> k) + "1"
    return filled(signs) + filled(remainders) + filled(quotients)


def parameter(entries: int, n: int) -> int:
    """Return k = floor(log2(n / entries)), 0 for no entries.

    For gaps of a geometric distribution the best k is about log2(ln 2 / density); this
    is that, rounded to the nearest integer (but for 2 % of an octave), without a logarithm.

    >>> [parameter(entries, 10_000) for entries in (0, 10_000, 1000, 100, 50, 10)]
    [0, 0, 3, 6, 7, 9]
    """
    return (n // entries).bit_length() - 1 if entries else 0


def gaps(index: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return how many values lie between each entry and the one before it."""
    gap = index.copy()
    gap[1:] -= index[:-1]
    gap[1:] -= 1
    return gap


def size(words: NDArray[np.uint32], k: int) -> int:
    """Return the bytes of a body."""
    quotients = int((gaps(indices(words)) >> k).sum(dtype=np.int64))
    return sum(_planes(words.size, k, quotients))


def _planes(entries: int, k: int, quotients: int) -> tuple[int, int, int]:
    """Return the bytes of the three planes."""
    return room(entries), room(entries * k), room(entries + quotients)


def write(words: NDArray[np.uint32], k: int, body: NDArray[np.uint8]) -> None:
    """Write what `plain` returns."""
    signs, remainders, unary = _split(body, words.size, k)
    signs[:] = np.packbits((words & 1).astype(np.bool_))
    gap = gaps(indices(words))
    position = np.arange(k - 1, -1, -1, dtype=np.uint32)
    for first in range(0, words.size if k else 0, PIECE):
        bits = (gap[first : first + PIECE, None] >> position & 1).astype(np.bool_)
        packed = np.packbits(bits)
        remainders[first * k // 8 :][: packed.size] = packed
    ends = (gap >> k).astype(np.int64)
    ends += 1
    np.cumsum(ends, out=ends)
    ends -= 1
    bits = np.zeros(8 * unary.size, np.bool_)
    bits[ends] = True
    unary[:] = np.packbits(bits)


def read(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the words of a body, or refuse it."""
    m, k = header.entries, header.k
    signs, remainders, unary = _split(body, m, k)  # of a body too short nothing is left for unary
    # Quotients sum up to at most n >> k, so a longer plane cannot be right; do not unpack it.
    header.need(unary.size <= room(m + (header.n >> k)), body)
    ends = np.flatnonzero(np.unpackbits(unary))
    header.need(ends.size == m and unary.size == (room(int(ends[-1]) + 1) if m else 0), body)
    index = np.diff(ends, prepend=-1) - 1  # the quotients
    index <<= k
    weight = 1 << np.arange(k - 1, -1, -1)
    for first in range(0, m if k else 0, PIECE):
        part = index[first : first + PIECE]
        bits = np.unpackbits(remainders[first * k // 8 :], count=part.size * k)
        part += bits.reshape(part.size, k) @ weight
    index += 1
    np.cumsum(index, out=index)
    index -= 1
    if m and index[-1] >= header.n:
        raise MessageError(f"an index of a GTC message for {header.n} values is out of range")
    if _tail(signs, m) or _tail(remainders, m * k):
        raise MessageError("bits are set in a rice GTC message where its planes are filled up")
    index <<= 1
    index |= np.unpackbits(signs, count=m)
    return index.astype(np.uint32)


def _split(body: NDArray[np.uint8], entries: int, k: int) -> list[NDArray[np.uint8]]:
    """Return the three planes of a body; the last is what the first two leave."""
    signs, remainders, _ = _planes(entries, k, 0)
    return np.split(body, [signs, signs + remainders])


def _tail(plane: NDArray[np.uint8], bits: int) -> bool:
    """Return whether any bit after the first ``bits`` is set in the plane's last byte."""
    return bool(bits % 8 and plane[-1] & (255 >> bits % 8))
