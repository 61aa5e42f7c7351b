"""The bytes of a GTC message, in three formats.

A message is a header of 24 bytes and a body.  All numbers are little-endian; inside a byte the
most significant bit comes first; bits that fill up the last byte are zero.

    bytes   header
    0-3     "GTC1"
    4       format: 0 index, 1 two-bit, 2 rice
    5       k of the Rice code; 0 in the other formats
    6-7     zero
    8-11    n, the number of values that the message stands for          uint32, at most 2**31
    12-15   m, the number of entries                                     uint32
    16-23   tau                                                          float64

    format    body                                                       bytes
    index     m words, index << 1 | (1 for +tau), rising                 4 m
    two-bit   n codes of two bits: 00 nothing, 11 +tau, 10 -tau          n / 4 rounded up
    rice      three planes, each filled up to a byte:                    ceil(m / 8)
              m sign bits, 1 for +tau;                                   + ceil(m k / 8)
              m remainders of k bits, gap mod 2**k;                      + ceil((m + Q) / 8)
              m quotients q = gap >> k, as q zeros and a one

A *gap* is how many values lie between an entry and the one before it (before the first: the
number of values in front of it), and Q the sum of the quotients.  The planes stand one after
another, and not entry by entry, so that each can be read at once.  k = floor(log2(n / m)), near
the best for entries that are spread evenly.

`encode` and `decode` are inverse to each other.  `decode` accepts nothing else than what `encode`
can write: a message that is cut off, too long, for another n or tau, with an index out of range,
twice or out of order, an unknown code or a bit set where none may be, is a `MessageError`, and
nothing is added from it.  What still looks like a message is not detected: there is no checksum,
as MPI delivers what was sent.

References: the word is that of LBANN's ``lbann_quantizer``; the two-bit codes and their order are
those of MXNet's ``gradient_compression``; S. W. Golomb, "Run-length encodings", IEEE Trans.
Information Theory 12(3), 1966.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc.threshold import MOST, indices
from refimpl.support.errors import UserError, listed

FORMATS = ("index", "two-bit", "rice")

# What may be asked for: one format, the smaller of the first two, or the smallest of all.
CHOICES = (*FORMATS, "auto", "smallest")

_HEADER = struct.Struct("<4sBBHIId")
_MAGIC = b"GTC1"
HEADER_BYTES = _HEADER.size

# How much is turned into bits, or back, at a time: entries of a plane of remainders, bits of
# two-bit codes.  A power of two and a multiple of 8, so that a piece fills whole bytes.
PIECE = 1 << 16

_WORD = np.dtype("<u4")


class MessageError(ValueError):
    """Bytes that are not a GTC message for this vector and threshold."""


class Header(NamedTuple):
    """What stands at the head of a message."""

    format: str
    k: int
    n: int
    entries: int
    tau: float

    def write(self, out: NDArray[np.uint8]) -> None:
        """Write the header into the first bytes of a message."""
        _HEADER.pack_into(
            out, 0, _MAGIC, FORMATS.index(self.format), self.k, 0, self.n, self.entries, self.tau
        )

    @classmethod
    def read(cls, message: NDArray[np.uint8]) -> Header:
        """Read a header and check what can be checked without knowing what is expected."""
        if message.size < HEADER_BYTES:
            raise MessageError(
                f"{message.size} bytes are no GTC message: its header alone has {HEADER_BYTES}"
            )
        magic, number, k, zero, n, entries, tau = _HEADER.unpack_from(message)
        if magic != _MAGIC:
            raise MessageError(f"not a GTC message: it begins with {magic!r}, not {_MAGIC!r}")
        if number >= len(FORMATS) or zero != 0:
            raise MessageError(f"unknown format {number} (reserved bytes {zero}) in a GTC message")
        form = FORMATS[number]
        if n > MOST or entries > n:
            raise MessageError(f"a GTC message of {entries} entries for {n} values")
        if not (math.isfinite(tau) and tau > 0):
            raise MessageError(f"a GTC message with threshold {tau}")
        if k != (rice_parameter(entries, n) if form == "rice" else 0):
            raise MessageError(f"Rice parameter {k} in a {form} message of {entries} of {n}")
        return cls(form, k, n, entries, tau)


def choose(words: NDArray[np.uint32], n: int, wanted: str = "auto") -> str:
    """Return the format for a message: the one wanted, or the smallest (at equal size the first).

    ``auto`` chooses between index and two-bit (which is smaller where more than one value in 16
    is sent), ``smallest`` among all three.

    >>> few, many = np.array([3], np.uint32), np.arange(1, 33, 2, dtype=np.uint32)
    >>> choose(few, 16), choose(many, 16), choose(many, 16, "rice")
    ('index', 'two-bit', 'rice')
    """
    check_format(wanted)
    if wanted in FORMATS:
        return wanted
    candidates = FORMATS if wanted == "smallest" else FORMATS[:2]
    return min(candidates, key=lambda form: size(words, n, form))


def check_format(wanted: str) -> None:
    """Refuse a name that is not a format or a way to choose one."""
    if wanted not in CHOICES:
        raise UserError(f"no message format {wanted!r}: choose one of {listed(CHOICES)}")


def size(words: NDArray[np.uint32], n: int, form: str) -> int:
    """Return the bytes of a message, header included."""
    if form == "index":
        return HEADER_BYTES + 4 * words.size
    if form == "two-bit":
        return HEADER_BYTES + _bytes(2 * n)
    k = rice_parameter(words.size, n)
    quotients = int((_gaps(indices(words)) >> k).sum(dtype=np.int64))
    return HEADER_BYTES + sum(_planes(words.size, k, quotients))


def limits(n: int) -> tuple[int, int]:
    """Return the least and the greatest bytes that any message for n values can have.

    No format takes more than 4 bytes for each of n entries.
    """
    return HEADER_BYTES, HEADER_BYTES + 4 * n


def encode(
    words: NDArray[np.uint32], n: int, tau: float, form: str, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Write a message.

    Parameters
    ----------
    words : (m,) uint32
        From `threshold.encode`: rising, each index once and below n.
    n, tau : int, float
        The length of the vector, and the threshold.
    form : str
        One of `FORMATS`; see `choose`.
    out : (size(words, n, form),) uint8, optional
        Where to write; by default new memory.

    Returns
    -------
    (bytes,) uint8
        The message, ``out`` if it was given.

    >>> encode(np.array([3, 6], np.uint32), 5, 0.5, "two-bit")[HEADER_BYTES:]
    array([50,  0], dtype=uint8)
    """
    if out is None:
        out = np.empty(size(words, n, form), np.uint8)
    k = rice_parameter(words.size, n) if form == "rice" else 0
    Header(form, k, n, words.size, tau).write(out)
    body = out[HEADER_BYTES:]
    if form == "index":
        body.view(_WORD)[:] = words
    elif form == "two-bit":
        _write_codes(words, body)
    else:
        _write_rice(words, k, body)
    return out


def decode(
    message: NDArray[np.uint8], n: int, tau: float | None = None
) -> tuple[Header, NDArray[np.uint32]]:
    """Read a message: its header, and its entries as words.

    Parameters
    ----------
    message : (bytes,) uint8
        Not modified.
    n : int
        The length of the vector that it must be for.
    tau : float, optional
        The threshold that it must have.

    Raises
    ------
    MessageError
        If this is not what `encode` wrote for such a vector and threshold.
    """
    header = Header.read(message)
    if header.n != n:
        raise MessageError(f"a GTC message for {header.n} values, where {n} are needed")
    if tau is not None and header.tau != tau:
        raise MessageError(f"a GTC message with threshold {header.tau!r}, where it is {tau!r}")
    body = message[HEADER_BYTES:]
    if header.format == "index":
        words = _read_words(header, body)
    elif header.format == "two-bit":
        words = _read_codes(header, body)
    else:
        words = _read_rice(header, body)
    return header, words


# ------------------------------------------------------------------------------------- index


def _read_words(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    _need(body.size == 4 * header.entries, header, body)
    words = body.view(_WORD).astype(np.uint32)
    index = indices(words)
    if not (index[1:] > index[:-1]).all() or (index.size and index[-1] >= header.n):
        raise MessageError(
            f"indices of a GTC message for {header.n} values are out of range, or do not rise"
        )
    return words


# ----------------------------------------------------------------------------------- two-bit


def _write_codes(words: NDArray[np.uint32], body: NDArray[np.uint8]) -> None:
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


def _read_codes(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    _need(body.size == _bytes(2 * header.n), header, body)
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


# -------------------------------------------------------------------------------------- rice


def rice_parameter(entries: int, n: int) -> int:
    """Return k = floor(log2(n / entries)), 0 for no entries.

    For gaps of a geometric distribution of density d the best k is about log2(ln 2 / d); this is
    that, rounded to the nearest integer (but for 2 % of an octave), without a logarithm.

    >>> [rice_parameter(entries, 10_000) for entries in (0, 10_000, 1000, 100, 50, 10)]
    [0, 0, 3, 6, 7, 9]
    """
    return (n // entries).bit_length() - 1 if entries else 0


def _gaps(index: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return how many values lie between each entry and the one before it."""
    gap = index.copy()
    gap[1:] -= index[:-1]
    gap[1:] -= 1
    return gap


def _planes(entries: int, k: int, quotients: int) -> tuple[int, int, int]:
    """Return the bytes of the three planes."""
    return _bytes(entries), _bytes(entries * k), _bytes(entries + quotients)


def _write_rice(words: NDArray[np.uint32], k: int, body: NDArray[np.uint8]) -> None:
    signs, remainders, unary = _split(body, words.size, k)
    signs[:] = np.packbits((words & 1).astype(np.bool_))
    gap = _gaps(indices(words))
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


def _read_rice(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    m, k = header.entries, header.k
    _need(body.size >= sum(_planes(m, k, 0)), header, body)
    signs, remainders, unary = _split(body, m, k)
    # Quotients sum up to at most n >> k, so a longer plane cannot be right; do not unpack it.
    _need(unary.size <= _bytes(m + (header.n >> k)), header, body)
    ends = np.flatnonzero(np.unpackbits(unary))
    _need(ends.size == m and unary.size == (_bytes(int(ends[-1]) + 1) if m else 0), header, body)
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


def _bytes(bits: int) -> int:
    """Return the bytes that hold so many bits."""
    return -(-bits // 8)


def _need(right: bool, header: Header, body: NDArray[np.uint8]) -> None:
    if not right:
        raise MessageError(
            f"{body.size} bytes are not the body of a {header.format} GTC message of "
            f"{header.entries} entries for {header.n} values: cut off, or too long, or altered"
        )
