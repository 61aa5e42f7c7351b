"""All-gather, reduce-scatter and all-reduce around a ring.

The p ranks stand in a circle; in every step each rank sends one chunk to its right neighbour
and receives one from its left.  p - 1 steps take every chunk to everybody; if a chunk is added
to on its way, they bring its sum to its owner.  No algorithm sends fewer bytes.

The two index functions say which chunk a rank sends in which step.  What it receives is what
its left neighbour sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Call, Ints, Offsets
from refimpl.collectives.cost import Step
from refimpl.collectives.order import Order, Orders, around, left_to_right
from refimpl.world.communicator import Communicator

Rank = TypeVar("Rank", int, Ints)

AHEAD = 1  # the tag of messages of `allgather_ahead`; all others have 0


def gathered(p: int, rank: Rank, step: int) -> Rank:
    """Return the chunk that a rank sends in a step of the all-gather: first its own.

    >>> [gathered(4, rank=0, step=step) for step in range(3)]
    [0, 3, 2]
    """
    return (rank - step) % p


def reduced(p: int, rank: Rank, step: int) -> Rank:
    """Return the chunk that a rank sends in a step of the reduce-scatter: its own comes last.

    >>> [reduced(4, rank=0, step=step) for step in range(3)]
    [3, 2, 1]
    """
    return (rank - 1 - step) % p


def order(p: int, chunk: int) -> Order:
    """Return the order of summation of a chunk: from the rank after its owner, round to it.

    >>> order(4, chunk=1)
    (((2, 3), 0), 1)
    """
    return left_to_right(around(p, chunk))


def orders(call: Call) -> Orders:
    """Return the order of summation of every chunk, for `reduce_scatter` and `allreduce`."""
    return [(place, order(call.p, chunk)) for chunk, place in enumerate(call.chunks)]


def allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place.

    Parameters
    ----------
    comm : Communicator
        p ranks.  All of them call, with the same length, dtype and offsets.
    x : (n,) array, any dtype
        Chunk r is rank r's on entry; all chunks are there afterwards.
    offsets : (p + 1,) sequence of int, optional
        Cut points of chunks of unequal length; by default `chunks.offsets`.

    Notes
    -----
    A chunk travels right, once round the ring.  For p = 4, the chunk that rank r sends::

        step   r=0   r=1   r=2   r=3
           0     0     1     2     3
           1     3     0     1     2
           2     2     3     0     1

    Cost per rank: p - 1 messages, n - n_c elements, where n_c is the length of its right
    neighbour's chunk (what the neighbour has is the only chunk it is not sent).
    """
    go_round(comm, x, chunks.slices(x, comm.size, offsets), comm.rank)


def go_round(comm: Communicator, x: Array, chunk: list[slice], v: int) -> None:
    """Fill every chunk of x with its owner's, who is the ring's node of that number; this is v."""
    p, r = comm.size, comm.rank
    right, left = (r + 1) % p, (r - 1) % p
    for step in range(p - 1):
        outgoing = x[chunk[gathered(p, v, step)]]
        incoming = x[chunk[gathered(p, (v - 1) % p, step)]]
        comm.Sendrecv(outgoing, right, recvbuf=incoming, source=left)


def allgather_ahead(comm: Communicator, x: Array) -> Iterator[None]:
    """Do `allgather` in steps that the caller takes, and may compute or communicate between.

    The first ``next`` starts the messages of the first step, every further one waits for those
    under way and starts the next step's; exhausted, x is complete.  Until then x is left alone.
    All ranks take the steps at the same places of their programs.

    The same messages as `allgather`.  They carry a tag of their own, so that those of another
    collective on ``comm`` may come between them.
    """
    p, r = comm.size, comm.rank
    right, left = (r + 1) % p, (r - 1) % p
    chunk = chunks.slices(x, p)
    for step in range(p - 1):
        incoming, outgoing = x[chunk[gathered(p, left, step)]], x[chunk[gathered(p, r, step)]]
        under_way = comm.Irecv(incoming, left, AHEAD), comm.Isend(outgoing, right, AHEAD)
        yield
        comm.wait(under_way)


def passed_on(
    comm: Communicator, held: tuple[Array, Array], lengths: Sequence[int]
) -> Iterator[tuple[int, Array]]:
    """Yield (rank, its chunk) of every rank, this one's first, then those that come round.

    The all-gather for who needs each chunk only once: a chunk is yielded while it travels on to
    the right neighbour and the next one arrives, so a rank holds two of them, not p.

    Parameters
    ----------
    comm : Communicator
        p ranks.  All of them call, with the same lengths, and exhaust it: who stops early leaves
        its right neighbour waiting.
    held : (array, array)
        Memory, each as long as the longest chunk.  The first begins with this rank's own.
    lengths : (p,) sequence of int
        Of the chunks.

    Notes
    -----
    The messages of `allgather`, in its order.  What is yielded is being sent: read it, do not
    change it.
    """
    p, r = comm.size, comm.rank
    right, left = (r + 1) % p, (r - 1) % p
    here, there = held
    for step in range(p - 1):
        mine, next_one = gathered(p, r, step), gathered(p, left, step)
        chunk = here[: lengths[mine]]
        under_way = comm.Irecv(there[: lengths[next_one]], left), comm.Isend(chunk, right)
        yield mine, chunk
        comm.wait(under_way)
        here, there = there, here
    yield right, here[: lengths[right]]


def reduce_scatter(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    r"""Sum x over the ranks; return the view of x that is this rank's chunk of the sum.

    With :math:`x^{(r)}` the vector of rank r, chunk c of the sum is

    .. math:: y_c = x^{(c+1)}_c + x^{(c+2)}_c + \cdots + x^{(c-1)}_c + x^{(c)}_c

    added from left to right, rank numbers modulo p.  The order is part of the contract: golden
    values depend on it to the last bit.

    Parameters
    ----------
    comm : Communicator
        p ranks.  All of them call, with the same length, dtype and offsets.
    x : (n,) array, float32, float64, int64 or another dtype that can be added
        This rank's addend.  Afterwards only the returned chunk has a defined content.
    offsets : (p + 1,) sequence of int, optional
        Cut points of chunks of unequal length; by default `chunks.offsets`.

    Returns
    -------
    (n_c,) array
        Chunk c = comm.rank of the sum, a view of x.

    Notes
    -----
    A chunk starts at the rank after its owner and travels right, each rank adding its own part.
    For p = 4, the chunk that rank r sends::

        step   r=0   r=1   r=2   r=3
           0     3     0     1     2
           1     2     3     0     1
           2     1     2     3     0

    Cost per rank: p - 1 messages, n - n_c elements.  `halving_doubling` sends as many elements
    in fewer messages, but not to neighbours.
    """
    p, r = comm.size, comm.rank
    right, left = (r + 1) % p, (r - 1) % p
    chunk = chunks.slices(x, p, offsets)
    for step in range(p - 1):
        outgoing, partial = x[chunk[reduced(p, r, step)]], x[chunk[reduced(p, left, step)]]
        arrived = comm.scratch(partial.size, x.dtype)
        comm.Sendrecv(outgoing, right, recvbuf=arrived, source=left)
        comm.add(partial, arrived)  # what the ranks behind us have added, and ours
    return x[chunk[r]]


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x by its sum over the ranks, in place: a reduce-scatter, then an all-gather.

    Order of summation: chunk by chunk, that of `reduce_scatter`; so all ranks get equal bits.
    Cost per rank: 2 (p - 1) messages and 2 n (p - 1)/p elements, exactly 2 n less its own chunk
    and its right neighbour's.  The algorithm of Patarasuk and Yuan (2009), bandwidth-optimal.
    """
    reduce_scatter(comm, x)
    allgather(comm, x)


def steps_around(
    ranks: Ints, sizes: Ints, sent: Callable[[int, Ints, int], Ints], adds: bool
) -> list[Step]:
    """Return the schedule of rings that turn at the same time, one per row of ``ranks`` (..., p).

    ``sizes`` (..., p) are their chunks, ``sent`` is `gathered` or `reduced`.
    """
    p = ranks.shape[-1]
    alike = bool((sizes == sizes.flat[0]).all())  # (np.unique would import numpy.ma: 2 MB)
    return [
        Step.of(
            ranks,
            np.roll(ranks, -1, axis=-1),
            sizes[..., sent(p, np.arange(p), step)],
            adds,
            times=p - 1 if alike else 1,
        )
        for step in range(min(1, p - 1) if alike else p - 1)
    ]


def allgather_steps(call: Call) -> list[Step]:
    """Return the schedule of `allgather`."""
    return steps_around(np.arange(call.p), call.sizes, gathered, adds=False)


def reduce_scatter_steps(call: Call) -> list[Step]:
    """Return the schedule of `reduce_scatter`."""
    return steps_around(np.arange(call.p), call.sizes, reduced, adds=True)


def allreduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `allreduce`."""
    return reduce_scatter_steps(call) + allgather_steps(call)
