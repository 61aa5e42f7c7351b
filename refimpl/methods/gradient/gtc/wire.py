"""The bytes of a GTC message, in three formats.

A message is a header of 24 bytes and a body.  All numbers are little-endian; inside a byte the
most significant bit comes first; bits that fill up the last byte are zero.

    bytes   header
    0-3     "GTC1"
    4       format: 0 index, 1 two-bit, 2 rice
    5       c of the Rice code; 0 in the other formats
    6-7     zero
    8-11    P, the number of values that the message stands for          uint32, at most 2**31
    12-15   m, the number of entries                                     uint32
    16-23   tau                                                          float64

    format    body                                                       bytes
    index     m words, index << 1 | (1 for +tau), rising                 4 m
    two-bit   P codes of two bits: 00 nothing, 11 +tau, 10 -tau          P / 4 rounded up
    rice      three planes, each filled up to a byte:                    ceil(m / 8)
              m sign bits, 1 for +tau;                                   + ceil(m c / 8)
              m remainders of c bits, gap mod 2**c;                      + ceil((m + Q) / 8)
              m quotients q = gap >> c, as q zeros and a one

A *gap* is how many values lie between an entry and the one before it (before the first: the
number of values in front of it), and Q the sum of the quotients.  c = floor(log2(P / m)), near
the best for entries that are spread evenly.  In code P is `n` and c is `k`.  `codes.plain` and
`rice.plain` spell the bodies out.

`encode` and `decode` are inverse to each other.  `decode` accepts nothing else than what `encode`
can write: a message that is cut off, too long, for another P or tau, with an index out of range,
twice or out of order, an unknown code or a bit set where none may be, is a `MessageError`, and
nothing is added from it.  What still looks like a message is not detected: there is no checksum,
as MPI delivers what was sent.

References: the word is that of LBANN's ``lbann_quantizer``; the two-bit codes and their order are
those of MXNet's ``gradient_compression``; for Rice codes see `rice`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc import codes, rice
from refimpl.methods.gradient.gtc.header import FORMATS, HEADER_BYTES, Header, MessageError
from refimpl.methods.gradient.gtc.threshold import indices
from refimpl.support.errors import UserError, listed

# What may be asked for: one format, the smaller of the first two, or the smallest of all.
CHOICES = (*FORMATS, "auto", "smallest")

_WORD = np.dtype("<u4")


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
        return HEADER_BYTES + codes.size(n)
    return HEADER_BYTES + rice.size(words, rice.parameter(words.size, n))


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
    k = _parameter(form, words.size, n)
    Header(form, k, n, words.size, tau).write(out)
    body = out[HEADER_BYTES:]
    if form == "index":
        body.view(_WORD)[:] = words
    elif form == "two-bit":
        codes.write(words, body)
    else:
        rice.write(words, k, body)
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
    if header.k != _parameter(header.format, header.entries, n):
        raise MessageError(
            f"Rice parameter {header.k} in a {header.format} message of {header.entries} of {n}"
        )
    body = message[HEADER_BYTES:]
    if header.format == "index":
        words = _read_words(header, body)
    elif header.format == "two-bit":
        words = codes.read(header, body)
    else:
        words = rice.read(header, body)
    return header, words


def _parameter(form: str, entries: int, n: int) -> int:
    """Return the k of the header."""
    return rice.parameter(entries, n) if form == "rice" else 0


def _read_words(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint32]:
    header.need(body.size == 4 * header.entries, body)
    words = body.view(_WORD).astype(np.uint32)
    index = indices(words)
    if not (index[1:] > index[:-1]).all() or (index.size and index[-1] >= header.n):
        raise MessageError(
            f"indices of a GTC message for {header.n} values are out of range, or do not rise"
        )
    return words
