"""Broadcast along a chain, in segments: each is passed on while the next one arrives.

Rank root + v hands to root + v + 1, up to the last.  A segment is under way p - 1 steps, and they
follow one another without a gap; for p = 4 and 3 segments, the one that each link carries::

    step  0->1  1->2  2->3
       0     0
       1     1     0
       2     2     1     0
       3           2     1
       4                 2

So m segments need m + p - 2 steps, and of a long vector every link carries V once.
"""

from __future__ import annotations

import numpy as np

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Call, Ints
from refimpl.collectives.cost import Step
from refimpl.world.communicator import Communicator

SEGMENT = 1 << 15  # values; shorter ones would spend their time on messages, not on bytes


def segments(n: int) -> Ints:
    """Return the cut points of the segments, as few as are needed and equally long, nearly.

    >>> segments(SEGMENT).tolist(), segments(SEGMENT + 1).tolist()
    ([0, 32768], [0, 16385, 32769])
    """
    return chunks.offsets(n, max(1, -(-n // SEGMENT)))


def broadcast(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace x by the root's, in place; x (n,) of any dtype.

    Every rank but the last sends all of x once, m = ceil(n / SEGMENT) messages.
    T = (m + p - 2) (alpha + V/m beta): the least that there is for a vector much longer than the
    chain, if the ranks are neighbours.
    """
    p, v = comm.size, (comm.rank - root) % comm.size
    right, left = (comm.rank + 1) % p, (comm.rank - 1) % p
    parts = [x[part] for part in chunks.between(segments(x.size))]
    arriving = [comm.Irecv(part, left) for part in parts] if v > 0 else []
    for i, part in enumerate(parts):
        if v > 0:
            arriving[i].Wait()
        if v < p - 1:
            comm.Send(part, right)


def broadcast_steps(call: Call) -> list[Step]:
    """Return the schedule of `broadcast`."""
    return steps_along(call, np.diff(segments(call.n)))


def steps_along(call: Call, sizes: Ints) -> list[Step]:
    """Return the schedule for segments of these sizes: in step s, node v sends segment s - v."""
    p, steps = call.p, []
    for s in range(len(sizes) + p - 2 if p > 1 else 0):
        v = np.arange(max(0, s - len(sizes) + 1), min(s, p - 2) + 1)
        steps.append(Step.of((v + call.root) % p, (v + 1 + call.root) % p, sizes[s - v]))
    return steps
