"""Small exchanges: a few numbers of every rank, on all ranks.

What ranks agree on while they train and score (a norm, a density, the sum of losses) is sent like
everything else: messages written out, counted, their cost stated.  They go round the ring, and
whoever adds them up adds in rank order, or whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from refimpl.collectives import ring
from refimpl.collectives.cost import Cost
from refimpl.collectives.families import RING
from refimpl.numerics.exact import LARGEST
from refimpl.world.communicator import Communicator

# Bytes of a number of `summed`: room for a sum of 2**77 numbers of float64 in `exact.units`.
WIDTH = (LARGEST + 77) // 8 + 1


def gathered(comm: Communicator, row: ArrayLike, purpose: str = "control") -> np.ndarray:
    """Return the rows (m,) of all ranks, (p, m) in rank order.

    Length and dtype are the same on all ranks.  Collective.  Cost per rank: p - 1 messages of one
    row each; `cost` gives it exactly.
    """
    mine = np.asarray(row)
    rows = np.zeros((comm.size, mine.size), mine.dtype)
    rows[comm.rank] = mine
    if comm.size > 1:
        with comm.purpose(purpose):
            ring.allgather(comm, rows.reshape(-1))
    return rows


def summed(comm: Communicator, numbers: Sequence[int], purpose: str = "control") -> list[int]:
    """Return the sums over all ranks of m whole numbers, of any size that float64 can bring.

    Collective.  Cost: that of `gathered`, with rows of m WIDTH bytes.
    """
    row = b"".join(number.to_bytes(WIDTH, "little", signed=True) for number in numbers)
    rows = gathered(comm, np.frombuffer(row, np.uint8), purpose)
    columns = rows.reshape(comm.size, len(numbers), WIDTH).swapaxes(0, 1)
    return [
        sum(int.from_bytes(word.tobytes(), "little", signed=True) for word in column)
        for column in columns
    ]


def cost(m: int, nodes: tuple[int, ...], itemsize: int = 8) -> Cost:
    """Return the cost of `gathered` with rows of m elements, on ranks that lie on these nodes.

    >>> cost(2, nodes=(0, 0, 1)).total()
    {'intra': Count(messages=2, bytes=32), 'inter': Count(messages=4, bytes=64)}
    """
    return RING.cost("allgather", m * len(nodes), nodes, itemsize)
