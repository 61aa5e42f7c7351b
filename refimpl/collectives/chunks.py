"""How n elements are cut into p chunks: arithmetic only, no MPI.

A *chunk* is the part of a vector that one rank owns: rank r's is what it brings to an
all-gather and what it takes from a reduce-scatter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[np.int64]
Offsets: TypeAlias = Sequence[int] | Ints  # the p + 1 cut points of p chunks


def offsets(n: int, p: int) -> Ints:
    """Return the p + 1 cut points of ``range(n)``; chunk c is ``[off[c], off[c + 1])``.

    The first n % p chunks hold one element more than the others, so sizes differ by at most
    one, and the last chunks are empty when n < p.

    >>> offsets(7, 3).tolist(), offsets(2, 4).tolist()
    ([0, 3, 5, 7], [0, 1, 2, 2, 2])
    """
    size, longer = divmod(n, p)
    chunk = np.arange(p + 1)
    return chunk * size + np.minimum(chunk, longer)


def slices(x: Array, p: int, cut: Offsets | None = None) -> list[slice]:
    """Return the p chunks of x as slices: `offsets` of its length, or a given cut.

    >>> slices(np.zeros(3), 2), slices(np.zeros(3), 2, cut=[0, 0, 3])
    ([slice(0, 2, None), slice(2, 3, None)], [slice(0, 0, None), slice(0, 3, None)])
    """
    assert x.shape == (x.size,), x.shape
    assert x.flags.c_contiguous, x.strides
    if cut is None:
        return list(_slices(offsets, x.size, p))
    assert (len(cut), cut[0], cut[-1]) == (p + 1, 0, x.size), (cut, p, x.size)
    return between(cut)


@lru_cache(maxsize=1024)
def _slices(cut: Callable[[int, int], Ints], n: int, p: int) -> tuple[slice, ...]:
    """Return the p chunks of n elements, worked out once for each shape of call."""
    return tuple(between(cut(n, p)))


def between(points: Offsets) -> list[slice]:
    """Return the slices between neighbouring cut points.

    >>> between([0, 2, 2])
    [slice(0, 2, None), slice(2, 2, None)]
    """
    return [slice(first, last) for first, last in itertools.pairwise(np.asarray(points).tolist())]


class Call(NamedTuple):
    """One call of a collective, as far as its schedule and its order of summation depend on it.

    ``sizes`` (p,): the elements of each rank's chunk.  ``nodes``: the node of each rank.

    >>> call = Call.of(7, nodes=(0, 0, 1))
    >>> call.p, call.n, call.sizes.tolist()
    (3, 7, [3, 2, 2])
    """

    sizes: Ints
    nodes: tuple[int, ...]
    root: int = 0

    @classmethod
    def of(cls, n: int, nodes: tuple[int, ...], root: int = 0, cut: Offsets | None = None) -> Call:
        """Describe a call with n elements, cut by `offsets` or as given."""
        points = offsets(n, len(nodes)) if cut is None else np.asarray(cut)
        return cls(np.diff(points), nodes, root)

    @property
    def p(self) -> int:
        """The number of ranks."""
        return len(self.nodes)

    @property
    def n(self) -> int:
        """The number of elements."""
        return int(self.sizes.sum())

    @property
    def chunks(self) -> list[slice]:
        """The place of each rank's chunk."""
        return between(np.cumsum([0, *self.sizes]))
