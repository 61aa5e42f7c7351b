"""A dense sum of float vectors in either reduction, for the methods that mostly send less."""

from __future__ import annotations

import numpy as np

from refimpl.collectives import Collectives
from refimpl.numerics.exact import FixedPoint
from refimpl.world.communicator import Communicator


def allreduce(
    group: Communicator, collectives: Collectives, x: np.ndarray, fixed: FixedPoint | None
) -> None:
    """Replace x (n,) by its sum over the group, in place; one all-reduce of n elements.

    With ``fixed`` the terms are turned into 64-bit fixed point, and the sum back to x's dtype: the
    same bits for every algorithm and every cut of x into shards.  Without, the order of summation
    is that of the collective.
    """
    if group.size == 1:
        return
    if fixed is None:
        collectives.allreduce(group, x)
        return
    # Slot 0 belongs to the algorithm.
    terms = group.scratch(x.size, np.int64, slot=1)
    fixed.encode(x, terms)
    collectives.allreduce(group, terms)
    fixed.decode(terms, x)
