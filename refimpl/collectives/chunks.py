"""How n elements are cut into p chunks: arithmetic only, no MPI.

A *chunk* is the part of a vector that one rank owns: rank r's is what it brings to an
all-gather and what it takes from a reduce-scatter.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def offsets(n: int, p: int) -> NDArray[np.int64]:
    """Return the p + 1 cut points of ``range(n)``; chunk c is ``[off[c], off[c + 1])``.

    The first n % p chunks hold one element more than the others, so sizes differ by at most
    one, and the last chunks are empty when n < p.

    >>> offsets(7, 3).tolist(), offsets(2, 4).tolist()
    ([0, 3, 5, 7], [0, 1, 2, 2, 2])
    """
    size, longer = divmod(n, p)
    chunk = np.arange(p + 1)
    return chunk * size + np.minimum(chunk, longer)


def slices(x: NDArray, p: int, cut: Sequence[int] | NDArray | None = None) -> list[slice]:
    """Return the p chunks of x as slices: `offsets` of its length, or a given cut.

    >>> slices(np.zeros(3), 2), slices(np.zeros(3), 2, cut=[0, 0, 3])
    ([slice(0, 2, None), slice(2, 3, None)], [slice(0, 0, None), slice(0, 3, None)])
    """
    assert x.shape == (x.size,), x.shape
    assert x.flags.c_contiguous, x.strides
    points = (offsets(x.size, p) if cut is None else np.asarray(cut)).tolist()
    assert (len(points), points[0], points[-1]) == (p + 1, 0, x.size), (points, p, x.size)
    return [slice(first, last) for first, last in itertools.pairwise(points)]
