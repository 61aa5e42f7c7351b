"""Rows of bits: the bytes they fill, and where the few set ones of a long row are.

NumPy's own search, ``mask.nonzero()``, costs about 30 ns for every hit in a sparse mask, nearly
all of it for mispredicted branches.  Packed to words of 32 bits, half a percent of hits leaves
one word in seven that is not zero; those are found without branches, and their lowest set bits
are taken off all at once, again and again until nothing is left: few words have more than two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Above this share of set bits NumPy's search has no branches either, and is the faster one.
DENSE = 0.1

_WORD = np.dtype("<u4")


def pack(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask as bits: eight to a byte, the first one lowest, the last byte filled up."""
    return np.packbits(mask, bitorder="little")


def set_bits(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the numbers of the set bits, rising.

    ``bits`` (a multiple of 4 bytes) as from `pack`.

    >>> set_bits(np.array([0b101, 0, 0, 128, 1, 0, 0, 0], np.uint8))
    array([ 0,  2, 31, 32])
    """
    word = bits.view(_WORD)
    place = (word != 0).nonzero()[0]
    word = word[place]
    if int(np.bitwise_count(word).sum(dtype=np.int64)) > DENSE * 8 * bits.size:
        return np.unpackbits(bits, bitorder="little").view(np.bool_).nonzero()[0]
    place <<= 5
    found = [place[:0]]
    while word.size:
        lowest = word & -word
        found.append(place + np.bitwise_count(lowest - 1))
        word ^= lowest
        left = (word != 0).nonzero()[0]
        place, word = place[left], word[left]
    index = np.concatenate(found)
    index.sort(kind="stable")  # a merge of the sorted runs found, not a sort from nothing
    return index


def room(bits: int) -> int:
    """Return the bytes that hold so many bits."""
    return -(-bits // 8)


def filled(bits: str) -> bytes:
    """Return bits, spelled out, as bytes: most significant first, the last byte filled up with 0.

    >>> filled("1000000011").hex(" ")
    '80 c0'
    """
    whole = 8 * room(len(bits))
    return int(bits.ljust(whole, "0") or "0", 2).to_bytes(whole // 8, "big")
