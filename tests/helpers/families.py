"""Inputs for collectives, and families with a part exchanged."""

import dataclasses

import numpy as np

from refimpl.collectives.interface import ROOTED
from refimpl.world.events import Listener


class Sent(Listener):
    """Keeps what leaves a rank: (receiver in the world, bytes)."""

    kinds = frozenset({"send"})

    def __init__(self):
        self.messages = []

    def begin(self, event):
        self.messages.append((event.peer, event.value.tobytes()))


def add_up(order, addends):
    """Return the sum of the addends, one per rank, in this order: what an algorithm must give."""
    if isinstance(order, int):
        return addends[order]
    left, right = order
    return add_up(left, addends) + add_up(right, addends)


def doing(family, **runs):
    """Return the family with other algorithms, whose costs and orders are taken to be the same."""
    changed = {name: family.algorithms[name]._replace(run=run) for name, run in runs.items()}
    return dataclasses.replace(family, algorithms=family.algorithms | changed)


def run(family, operation, comm, x, root=0, offsets=None):
    """Call one operation; return its result, x or a view of it."""
    more = (root,) if operation in ROOTED else () if operation == "allreduce" else (offsets,)
    got = getattr(family, operation)(comm, x, *more)
    return got if operation in ("reduce_scatter", "alltoall") else x


def addend(rank, n, dtype):
    """A vector whose sum over ranks depends on the order of its terms."""
    rng = np.random.default_rng([11, rank, n])
    if np.issubdtype(dtype, np.integer):
        return rng.integers(-(1 << 60), 1 << 60, n).astype(dtype)
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-4, 5, n)).astype(dtype)


def addends(p, n, dtype):
    """The vectors of all ranks."""
    return [addend(rank, n, dtype) for rank in range(p)]


def stated_sum(orders, vectors):
    """Add up the vectors as a family says that it does."""
    total = np.full_like(vectors[0], 77)
    for part, order in orders:
        total[part] = add_up(order, [vector[part] for vector in vectors])
    return total


def uneven(n, p):
    """Cut points of chunks of very unequal length, some of them empty."""
    inner = np.random.default_rng([n, p]).integers(0, n + 1, p - 1)
    return [0, *np.sort(inner).tolist(), n]


def anything(rank, n, dtype):
    """A vector of random bytes."""
    return np.frombuffer(
        bytearray(np.random.default_rng([rank, n]).bytes(n * dtype.itemsize)), dtype
    )
