"""Two values for every column: one bit per value, as CNTK's 1-bit SGD rounds it.

A *column* holds the weights of one input to all outputs: a column of CNTK's matrices (outputs,
inputs), which lie in memory column by column, and a row of ours (inputs, outputs), row by row.  So
for both it is a run of neighbours, along the last axis of a parameter; a bias is one.  What a
shard or a chunk has of a column counts as a column, and padding does.  Of every one

    low  = mean of its values <  0               of no values: 0
    high = mean of its values >= 0
    Q(x) = high where x >= 0, else low

These are the two values with the least square error if zero is the border between them.  Where no
gradient ever was, such as at an input that is always zero, Q is 0.

    message of a chunk of c values in k columns     bytes
    low, high of each                               8 k, float32 (16 k, float64), little-endian
    signs, 1 for high                               ceil(c / 8), as with one scale
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Ints
from refimpl.methods.gradient.gtc.bits import room
from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.methods.gradient.onebit.message import STRIP, check
from refimpl.nn.flat import Layout


class Columns:
    """How a chunk is said by the means of its columns; a `message.Code`.

    Parameters
    ----------
    lengths : (k,) int64
        The values of each column, at least 1.
    dtype : dtype
        Of the values.

    >>> code = Columns(np.array([3, 2]), np.dtype(np.float32))
    >>> x, out = np.array([3, -1, 1, -2, -4], np.float32), np.empty(code.nbytes, np.uint8)
    >>> code.encode(x, out)
    >>> x.tolist(), out[:16].view("<f4").tolist(), out[16:].tolist()
    ([1.0, 0.0, -1.0, 1.0, -1.0], [-1.0, 2.0, -3.0, 0.0], [160])
    """

    def __init__(self, lengths: Ints, dtype: np.dtype) -> None:
        self.columns, self.values = lengths.size, int(lengths.sum())
        self._pair = dtype.newbyteorder("<")
        self._head = 2 * dtype.itemsize * self.columns
        self.nbytes = self._head + room(self.values)
        self._blocks = list(_blocks(lengths))
        self._most = max((k * length for _, _, (k, length) in self._blocks), default=0)

    def encode(self, x: np.ndarray, out: NDArray[np.uint8]) -> None:
        """Write the message of x (c,), and leave in x what it does not say: x = x - Q(x).

        Sums in float64, the means rounded to x's dtype.
        """
        pairs, signs = np.empty((self.columns, 2), x.dtype), np.empty(x.size, np.bool_)
        memory = np.empty((2, self._most), x.dtype)
        for columns, place, shape in self._blocks:
            rows = x[place].reshape(shape)
            plus = np.greater_equal(rows, 0, out=signs[place].reshape(shape))
            one, side = memory[:, : rows.size].reshape(2, *shape)
            one[:] = plus
            count = np.count_nonzero(plus, axis=1)
            pairs[columns, 1] = _means(np.multiply(rows, one, out=side), count)
            pairs[columns, 0] = _means(np.subtract(rows, side, out=side), shape[1] - count)
            for said in _said(one, pairs[columns], side):
                rows -= said
        out[: self._head] = pairs.astype(self._pair).reshape(-1).view(np.uint8)
        out[self._head :] = np.packbits(signs)

    def add(self, message: NDArray[np.uint8], out: np.ndarray) -> None:
        """Add Q, as its message says, to ``out`` (c,).

        Raises `MessageError` if `encode` cannot have written this; ``out`` is not changed.
        """
        what = f"{self.values} values in {self.columns} columns"
        check(message, self.values, self.nbytes, what)
        pairs = message[: self._head].view(self._pair).reshape(-1, 2).astype(out.dtype)
        if (pairs[:, 0] > 0).any() or (pairs[:, 1] < 0).any():
            raise MessageError("a column of a one-bit message whose values are on the wrong side")
        signs = np.unpackbits(message[self._head :]).view(np.bool_)
        memory = np.empty((2, self._most), out.dtype)
        for columns, place, shape in self._blocks:
            rows = out[place].reshape(shape)
            one, side = memory[:, : rows.size].reshape(2, *shape)
            one[:] = signs[place].reshape(shape)
            for said in _said(one, pairs[columns], side):
                rows += said


def _means(rows: np.ndarray, counts: Ints) -> np.ndarray:
    """Return each row's sum, in float64, over its count; 0 for none, and never -0.0."""
    means: np.ndarray = rows.sum(axis=1, dtype=np.float64) / np.maximum(counts, 1) + 0.0
    return means


def _said(one: np.ndarray, pairs: np.ndarray, memory: np.ndarray) -> Iterator[np.ndarray]:
    """Yield Q of rows in two parts: high where ``one`` is 1, and low where it is 0.

    Elsewhere a part is 0, so adding both rounds once.  (`np.where` takes twice as long.)
    """
    yield np.multiply(one, pairs[:, 1:], out=memory)
    np.subtract(1, one, out=one)
    yield np.multiply(one, pairs[:, :1], out=memory)


def _blocks(lengths: Ints) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Yield neighbours of one length, about STRIP values: columns, their values, (k, length)."""
    first = place = 0
    for length, same in itertools.groupby(lengths.tolist()):
        left = sum(1 for _ in same)
        while left:
            k = min(left, max(1, STRIP // length))
            yield slice(first, first + k), slice(place, place + k * length), (k, length)
            first, place, left = first + k, place + k * length, left - k


def codes(layout: Layout, shard: int, p: int, dtype: np.dtype) -> list[Columns]:
    """Return how each of the p chunks of a shard is said.

    >>> from refimpl.nn import Affine
    >>> layout = Layout([Affine("a", 2, 3, seed=1)])
    >>> [(code.columns, code.values) for code in codes(layout, 0, 2, np.dtype(np.float32))]
    [(2, 5), (2, 4)]
    """
    cut = chunks.offsets(layout.shard, p)
    points = np.unique(np.concatenate([cut, *_borders(layout, shard)]))
    ends = np.searchsorted(points, cut).tolist()
    return [Columns(np.diff(points[a : b + 1]), dtype) for a, b in itertools.pairwise(ends)]


def _borders(layout: Layout, shard: int) -> list[Ints]:
    """Return where columns, and padding, begin and end in a shard: rising, tensor by tensor."""
    found = []
    for unit in layout.units:
        start = shard * unit.piece
        for _, place, shape in unit.tensors:
            borders = place.start + np.arange(math.prod(shape[:-1]) + 1) * (1, *shape)[-1]
            found.append(np.clip(borders - start, 0, unit.piece) + unit.shard_place.start)
        found.append(np.array([unit.shard_place.start, unit.shard_place.stop]))
    return found
