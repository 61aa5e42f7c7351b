"""All-gather by Bruck's algorithm: ceil(lg p) steps for any p.

Every rank has its own chunk first.  With d = 1, 2, 4, ... chunks from its own on, it sends them to
the rank d places to the left and gets as many, the next ones round the circle, from d places to
the right; in the last step only those that are still missing.

Chunks go round, x does not: they stand in scratch, the own one first, and are put into their
places in x at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Call, Offsets
from refimpl.collectives.cost import Step
from refimpl.world.communicator import Communicator


def rounds(p: int) -> Iterator[tuple[int, int]]:
    """Yield, for every step, how far chunks travel to the left, and how many of them.

    >>> list(rounds(4)), list(rounds(6))
    ([(1, 1), (2, 2)], [(1, 1), (2, 2), (4, 2)])
    """
    distance = 1
    while distance < p:
        yield distance, min(distance, p - distance)
        distance *= 2


def sent(p: int, rank: int, number: int) -> list[int]:
    """Return the chunks that a rank sends in a step that sends so many: its own and the next.

    >>> sent(6, rank=5, number=2)
    [5, 0]
    """
    return [(rank + i) % p for i in range(number)]


def allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place; x (n,) of any dtype.

    Parameters are those of `ring.allgather`.  For p = 4, the chunks that rank r sends, and to
    whom::

        step      r=0      r=1      r=2      r=3
           0    0->r3    1->r0    2->r1    3->r2
           1  0,1->r2  1,2->r3  2,3->r0  3,0->r1

    Cost per rank: ceil(log2 p) messages of p - 1 chunks in all, n (p - 1)/p elements where p
    divides n: as few as the ring, in fewer messages; but every element is copied once more.
    """
    p, r = comm.size, comm.rank
    chunk = chunks.slices(x, p, offsets)
    owners = sent(p, r, p)
    cut = np.cumsum([0, *(chunk[c].stop - chunk[c].start for c in owners)]).tolist()
    run = comm.scratch(x.size, x.dtype)
    run[: cut[1]] = x[chunk[r]]
    for distance, number in rounds(p):
        incoming = run[cut[distance] : cut[distance + number]]
        left, right = (r - distance) % p, (r + distance) % p
        comm.Sendrecv(run[: cut[number]], left, recvbuf=incoming, source=right)
    ours = chunk[r].start  # from here to the end of x are those from our own on, then the others
    x[ours:], x[:ours] = run[: x.size - ours], run[x.size - ours :]
    comm.worked(x.nbytes - x[chunk[r]].nbytes)


def allgather_steps(call: Call) -> list[Step]:
    """Return the schedule of `allgather`."""
    p, rank = call.p, np.arange(call.p)
    return [
        Step.of(
            rank,
            (rank - distance) % p,
            [call.sizes[sent(p, r, number)].sum() for r in range(p)],
            copies=True,
        )
        for distance, number in rounds(p)
    ]
