"""All-to-all in pairs: every chunk goes straight to the rank that it is for."""

from __future__ import annotations

import numpy as np

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Call, Offsets
from refimpl.collectives.cost import Step
from refimpl.collectives.ring import Rank
from refimpl.world.communicator import Communicator


def receiver(p: int, rank: Rank, step: int) -> Rank:
    """Return to whom a rank sends in a step: first to its right neighbour.

    >>> [receiver(4, rank=3, step=step) for step in range(3)]
    [0, 1, 2]
    """
    return (rank + 1 + step) % p


def alltoall(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Send chunk c of x to rank c; return what came for this rank.

    Parameters
    ----------
    comm : Communicator
        p ranks.  All of them call, with the same length, dtype and offsets.
    x : (n,) array, any dtype
        Chunk c is for rank c.  Not modified.
    offsets : (p + 1,) sequence of int, optional
        Cut points of chunks of unequal length; by default `chunks.offsets`.

    Returns
    -------
    (p, n_r) array
        Row s is rank s's chunk r = comm.rank.  Work space of ``comm`` (slot 0), good until the
        next collective.

    Notes
    -----
    For p = 4, the rank to which rank r sends::

        step  r=0  r=1  r=2  r=3
           0    1    2    3    0
           1    2    3    0    1
           2    3    0    1    2

    Cost per rank: p - 1 messages, n - n_r elements.  In every step each rank receives from one
    rank only.
    """
    p, r = comm.size, comm.rank
    chunk = [x[part] for part in chunks.slices(x, p, offsets)]
    came = comm.scratch(p * chunk[r].size, x.dtype).reshape(p, chunk[r].size)
    came[r] = chunk[r]
    for step in range(p - 1):
        right, left = receiver(p, r, step), (r - 1 - step) % p
        comm.Sendrecv(chunk[right], right, recvbuf=came[left], source=left)
    return came


def alltoall_steps(call: Call) -> list[Step]:
    """Return the schedule of `alltoall`."""
    rank = np.arange(call.p)
    to = [receiver(call.p, rank, step) for step in range(call.p - 1)]
    return [Step.of(rank, dest, call.sizes[dest]) for dest in to]
