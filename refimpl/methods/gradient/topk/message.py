"""Chunked top-k with error feedback: what a message says, and its bytes.

The values of a unit that a rank owns are cut into *chunks* of c values side by side, the last one
perhaps shorter; padding is in none.  With r this rank's residual, zero at the start:

    r = decay r + gradient
    in every chunk:  the m values of largest magnitude are its entries, of equals the first ones
    sent             an entry's value as it is, or what two bits say of it; 0 elsewhere
    r = r - sent

*Two bits* are a uniform quantiser of four levels, whose unit t is a power of two:

    t = the largest power of two that is at most the largest magnitude of the chunk
    |r| <  t   is sent as  1/2 t          with the sign of r; a zero as +1/2 t
    |r| >= t   is sent as  3/2 t

No entry is wrong by more than t / 2.  (A chunk below the smallest normal number has t = 0 and
sends zeros.)  sent + r after = r before, exactly in dyadic arithmetic, in both forms.

    message of E entries in C chunks      bytes
    places, each within its chunk         2 E     uint16, rising in a chunk
    with floats:    values                4 E     (8 E in float64)
    with two bits:  t as log2             2 C     int16
                    codes                 ceil(E / 4)   minus?, 3/2?; most significant bit first

Numbers are little-endian, what fills up the last byte is 0.  Nothing of this depends on the data,
so everybody knows the length of everybody's message beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.nn.flat import Layout

# A place within a chunk has 16 bits.
LONGEST = 1 << 16
PLACE, LOG2 = np.dtype("<u2"), np.dtype("<i2")

# Values that are looked through at once: they and four temporaries stay in the cache.
STRIP = 1 << 15


class Run(NamedTuple):
    """Chunks of one length, one after the other from ``start``."""

    start: int
    chunks: int
    length: int


def runs(pieces: Iterable[tuple[int, int]], length: int) -> list[Run]:
    """Return the chunks of pieces (start, values).

    >>> runs([(0, 10), (12, 3)], length=4)
    [Run(start=0, chunks=2, length=4), Run(start=8, chunks=1, length=2), \
Run(start=12, chunks=1, length=3)]
    """
    found = []
    for start, values in pieces:
        whole, rest = divmod(values, length)
        found += [Run(start, whole, length), Run(start + whole * length, 1, rest)]
    return [run for run in found if run.chunks and run.length]


def owned(layout: Layout, shard: int) -> list[tuple[int, int]]:
    """Return the values of each unit that are in this shard, without padding: (start, values)."""
    return [
        (unit.shard_place.start, min(unit.piece, max(0, unit.size - shard * unit.piece)))
        for unit in layout.units
    ]


class Chunks:
    """The chunks of a shard and what a message of them is.

    Parameters
    ----------
    layout : Layout
        Where units lie.
    shard : int
        Which one of the p shards.
    length, most : int
        c, values of a chunk; m, how many of them are sent, or all if it has fewer.
    two_bit : bool
        How values are sent.
    dtype : dtype
        Of the gradient.
    """

    def __init__(
        self, layout: Layout, shard: int, length: int, most: int, two_bit: bool, dtype: np.dtype
    ) -> None:
        self.runs, self.most, self.two_bit = runs(owned(layout, shard), length), most, two_bit
        self.dtype = np.dtype(dtype)
        starts = [np.arange(one.chunks) * one.length + one.start for one in self.runs]
        lengths = np.repeat(
            [one.length for one in self.runs], [one.chunks for one in self.runs]
        ).astype(np.int64)
        each = np.minimum(lengths, most)
        self.chunks, self.entries = lengths.size, int(each.sum())
        # Of every entry: where its chunk begins, and how long that is.
        self._first = np.repeat(np.concatenate([np.empty(0, np.int64), *starts]), each)
        self._length = np.repeat(lengths, each)
        self._chunk = np.repeat(np.arange(self.chunks), each)
        self._cut = np.cumsum(each) - each

    @property
    def message_bytes(self) -> int:
        """Bytes of a message."""
        places = PLACE.itemsize * self.entries
        if not self.two_bit:
            return places + self.dtype.itemsize * self.entries
        return places + LOG2.itemsize * self.chunks + -(-self.entries // 4)

    def encode(self, residual: np.ndarray, out: NDArray[np.uint8]) -> None:
        """Write the message of a residual (shard,), and take what it says out of the residual.

        ``out`` : (message_bytes,) uint8.
        """
        places = np.concatenate(
            [np.empty(0, np.int64), *(self._places(residual, one) for one in self.runs)]
        )
        index = self._first + places
        values = residual[index]
        out[: PLACE.itemsize * self.entries].view(PLACE)[:] = places
        body = out[PLACE.itemsize * self.entries :]
        if self.two_bit:
            log2 = self._log2(values)
            minus, large = values < 0, np.abs(values) >= self._step(log2)
            values = self._two_bit(log2, minus, large)
            split = LOG2.itemsize * self.chunks
            body[:split].view(LOG2)[:] = log2
            body[split:] = np.packbits(np.column_stack([minus, large]))
        else:
            body.view(self.dtype.newbyteorder("<"))[:] = values
        residual[index] -= values

    def _places(self, residual: np.ndarray, run: Run) -> NDArray[np.int64]:
        """Return the places of a run's entries, chunk after chunk."""
        rows = residual[run.start :][: run.chunks * run.length].reshape(run.chunks, run.length)
        at_once = max(1, STRIP // run.length)
        found = [
            largest(rows[first : first + at_once], min(self.most, run.length)).ravel()
            for first in range(0, run.chunks, at_once)
        ]
        return np.concatenate(found)

    def _log2(self, values: np.ndarray) -> NDArray[np.int32]:
        """Return log2 of each chunk's t (chunks,), or what 2 to the power of is 0."""
        top = np.maximum.reduceat(np.abs(values), self._cut) if self.chunks else values
        log2 = np.frexp(top)[1].astype(np.int32) - 1
        log2[top < np.finfo(self.dtype).tiny] = np.iinfo(LOG2).min
        return log2

    def _step(self, log2: NDArray[np.int32]) -> np.ndarray:
        """Return each entry's t (entries,)."""
        steps: np.ndarray = np.ldexp(self.dtype.type(1), log2)
        return steps[self._chunk]

    def _two_bit(
        self, log2: NDArray[np.int32], minus: np.ndarray, large: np.ndarray
    ) -> np.ndarray:
        """Return what two bits per entry say (entries,)."""
        levels = np.array([0.5, 1.5, -0.5, -1.5], self.dtype)
        said: np.ndarray = levels[2 * minus.astype(np.int8) + large] * self._step(log2)
        return said

    def margin(self, residual: np.ndarray) -> np.ndarray:
        """Return how far every decision about a residual is from being another, relatively.

        Of every chunk that some values are left out of: from the last entry down to the next
        value.  With two bits also: from t up to each entry, and from it up to 2 t.
        """
        found = [np.empty(0, self.dtype)]
        for run in self.runs:
            rows = residual[run.start :][: run.chunks * run.length]
            ordered = np.sort(np.abs(rows.reshape(run.chunks, run.length)), axis=1)[:, ::-1]
            entries = ordered[:, : self.most]
            some = entries[:, 0] > 0
            if run.length > self.most:
                found.append(1 - ordered[some, self.most] / entries[some, -1])
            if self.two_bit:
                share = entries[some] / np.exp2(np.floor(np.log2(entries[some, :1])))
                found += [(share - 1).ravel(), (share - 2).ravel()]
        return np.concatenate(found)

    def decode(self, message: NDArray[np.uint8]) -> tuple[NDArray[np.int64], np.ndarray]:
        """Return where a message's entries are in a shard (entries,), rising, and their values.

        Raises
        ------
        MessageError
            If `encode` cannot have written these bytes.
        """
        if message.size != self.message_bytes:
            raise MessageError(
                f"{message.size} bytes are not the message of {self.entries} entries in "
                f"{self.chunks} chunks, which has {self.message_bytes}"
            )
        places = message[: PLACE.itemsize * self.entries].view(PLACE).astype(np.int64)
        index = self._first + places
        if (places >= self._length).any() or (np.diff(index) <= 0).any():
            raise MessageError("places of a top-k message that do not rise within their chunks")
        body = message[PLACE.itemsize * self.entries :]
        if not self.two_bit:
            return index, body.view(self.dtype.newbyteorder("<")).astype(self.dtype)
        split = LOG2.itemsize * self.chunks
        log2 = body[:split].view(LOG2).astype(np.int32)
        bits = np.unpackbits(body[split:])
        if bits[2 * self.entries :].any():
            raise MessageError("bits are set after the last code of a top-k message")
        info = np.finfo(self.dtype)
        normal = (log2 >= info.minexp) & (log2 < info.maxexp)
        if not (normal | (log2 == np.iinfo(LOG2).min)).all():
            raise MessageError("a chunk of a top-k message with no power of two for its values")
        minus, large = bits[: 2 * self.entries].reshape(self.entries, 2).T
        return index, self._two_bit(log2, minus, large)


def aligned(layout: Layout, length: int) -> bool:
    """Return whether the chunks of all shards are those of the whole vector.

    >>> from refimpl.nn.flat import one_unit
    >>> aligned(one_unit(24, partition=3), 4), aligned(one_unit(24, partition=4), 4)
    (True, False)
    """
    pieces: Sequence[int] = [unit.piece for unit in layout.units if unit.size > unit.piece]
    return all(piece % length == 0 for piece in pieces)


def plain(x: np.ndarray, most: int) -> NDArray[np.int64]:
    """Return the places (rows, most) of the largest magnitudes of every row, rising.

    Of equal ones the first: a stable sort says so by itself.

    >>> plain(np.array([[1.0, -3.0, 3.0, 0.5, 3.0]]), 2)
    array([[1, 2]])
    """
    return np.sort(np.argsort(-np.abs(x), axis=1, kind="stable")[:, :most], axis=1)


def largest(x: np.ndarray, most: int) -> NDArray[np.int64]:
    """Return what `plain` does, without sorting.

    Magnitudes are compared as integers: the bits of \\|x\\| rise with it, and NaN, which no number
    is larger than, is the largest.

    >>> largest(np.array([[1.0, -3.0, 3.0, 0.5, 3.0]]), 2)
    array([[1, 2]])
    """
    rows, length = x.shape
    if most == length:
        return np.broadcast_to(np.arange(length), x.shape)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    magnitude = x.view(unsigned) & unsigned.type(np.iinfo(unsigned).max >> 1)
    least = np.partition(magnitude, length - most, axis=1)[:, length - most, None]
    above, equal = magnitude > least, magnitude == least
    missing = most - above.sum(axis=1, keepdims=True)
    taken = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= missing))
    places: NDArray[np.int64] = taken.nonzero()[1].reshape(rows, most)
    return places
