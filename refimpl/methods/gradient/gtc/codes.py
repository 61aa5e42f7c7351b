"""Two-bit codes: what is sent of every value.

    00  nothing        11  +tau        10  -tau            01 means nothing and is refused

`plain` is the format.  `write` and `read` do the same for millions of values, piece by piece.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc.bits import filled, room
from refimpl.methods.gradient.gtc.header import Header, MessageError
from refimpl.methods.gradient.gtc.threshold import indices

# How many bits are made, or read, at a time.  A multiple of 8, so that a piece fills whole bytes,
# and a power of two, so that the place of a bit in its piece is its number's low bits.
PIECE = 1 << 16


def plain(words: NDArray[np.uint32], n: int) -> bytes:
    """Return the body of a message: n codes, one after another.

    >>> plain(np.array([3, 6], np.uint32), 5).hex(" ")  # +tau at 1, -tau at 3
    '32 00'
    """
    codes = ["00"] * n
    for word in words.tolist():
        codes[word >> 1] = "11" if word & 1 else "10"
    return filled("".join(codes))


def size(n: int) -> int:
    """Return the bytes of a body."""
    return room(2 * n)


def write(words: NDArray[np.uint32], body: NDArray[np.uint8]) -> None:
    """Write what `plain` returns, for as many values as fit the body."""
    # Code i is bit 2 i, sent, and bit 2 i + 1, plus; a word is the number of one or the other.
    edges = np.searchsorted(words, np.arange(0, 8 * body.size + PIECE, PIECE)).tolist()
    bits = np.empty(PIECE, np.bool_)
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        part = body[number * PIECE // 8 : (number + 1) * PIECE // 8]
        here = words[first:last] & (PIECE - 1)
        bits.fill(False)
        bits[here] = True
        here &= ~np.uint32(1)
        bits[here] = True
        part[:] = np.packbits(bits)[: part.size]


def read(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the words of a body, or refuse it."""
    header.need(body.size == size(header.n), body)
    parts = [np.empty(0, np.uint32)]
    for first in range(0, body.size, PIECE // 8):
        bits = np.unpackbits(body[first : first + PIECE // 8]).view(np.bool_)
        sent, plus = bits[0::2], bits[1::2]
        index = sent.nonzero()[0]
        if np.count_nonzero(plus) != np.count_nonzero(sign := plus[index]):
            raise MessageError("a two-bit GTC message with a code 01")
        word = index.astype(np.uint32)
        word += 4 * first
        word <<= 1
        word |= sign
        parts.append(word)
    words = np.concatenate(parts)
    if words.size != header.entries or (words.size and indices(words)[-1] >= header.n):
        raise MessageError(
            f"{words.size} entries in a two-bit GTC message, where its header says "
            f"{header.entries} of {header.n} values"
        )
    return words
