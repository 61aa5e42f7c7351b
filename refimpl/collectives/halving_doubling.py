"""Recursive halving and doubling: all-gather, reduce-scatter and all-reduce in log2 p steps.

The ranks [lo, hi) that work on the chunks [lo, hi) part in two halves, L = [lo, mid) and
U = [mid, hi).  For a reduce-scatter each rank hands the chunks of the other half over to its
partner there, gets its partner's part of its own half's, and adds it; then both halves go on by
themselves until each rank is alone with its chunk.  An all-gather runs the levels backwards.

Any p.  If hi - lo is odd, L is longer by one rank, mid - 1, which has no partner.  It hands over
to the last rank of U (which then gets two messages at this level) and gets nothing::

    p = 3    level 0  L = {0, 1}, U = {2}     0 <-> 2,  1 --> 2
             level 1  {0}, {1}                0 <-> 1

So in a reduce-scatter every rank still sends exactly the chunks that are not its own, once;
in an all-gather every rank still gets exactly these, and who serves two ranks sends more.  Nothing
is folded into other ranks first to make p a power of two (as MPICH does; Thakur, Rabenseifner and
Gropp 2005).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Call, Offsets
from refimpl.collectives.cost import Step
from refimpl.collectives.order import Order, Orders
from refimpl.world.communicator import Communicator


class Level(NamedTuple):
    """One rank's part in one level: a range of chunks to give away and one to keep."""

    give: tuple[int, int]
    to: int
    keep: tuple[int, int]
    sources: tuple[int, ...]


@lru_cache(maxsize=1024)
def levels(p: int, rank: int) -> tuple[Level, ...]:
    """Return the levels of one rank, from all ranks down to itself.

    >>> for level in levels(3, 2): print(level)
    Level(give=(0, 2), to=0, keep=(2, 3), sources=(0, 1))
    >>> for level in levels(4, 1): print(level)
    Level(give=(2, 4), to=3, keep=(0, 2), sources=(3,))
    Level(give=(0, 1), to=0, keep=(1, 2), sources=(0,))
    """
    lo, hi, found = 0, p, []
    while hi - lo > 1:
        mid = (lo + hi + 1) // 2
        surplus = (mid - 1,) if (hi - lo) % 2 else ()
        if rank >= mid:
            partner = lo + rank - mid
            sources = (partner, *surplus) if rank == hi - 1 else (partner,)
            found.append(Level((lo, mid), partner, (mid, hi), sources))
            lo = mid
        elif rank in surplus:
            found.append(Level((mid, hi), hi - 1, (lo, mid), ()))
            hi = mid
        else:
            partner = mid + rank - lo
            found.append(Level((mid, hi), partner, (lo, mid), (partner,)))
            hi = mid
    return tuple(found)


def order(p: int, chunk: int) -> Order:
    """Return the order of summation of a chunk: a tree, partners first.

    >>> order(4, 0), order(3, 2)
    (((0, 2), (1, 3)), ((2, 0), 1))
    """

    def held(rank: int, level: int) -> Order:
        """What a rank holds of this chunk before a level."""
        if level == 0:
            return rank
        total = held(rank, level - 1)
        for source in levels(p, rank)[level - 1].sources:
            total = (total, held(source, level - 1))
        return total

    return held(chunk, len(levels(p, chunk)))


def orders(call: Call) -> Orders:
    """Return the order of summation of every chunk, for `reduce_scatter` and `allreduce`."""
    return [(place, order(call.p, chunk)) for chunk, place in enumerate(call.chunks)]


def reduce_scatter(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Sum x over the ranks; return the view of x that is this rank's chunk of the sum.

    Order of summation: `order`.  At each level a rank adds its partner's partial sum to its own,
    then, if it has one, that of the rank without a partner.  Parameters and result are those of
    `ring.reduce_scatter`.

    For p = 4, the chunks that rank r sends, and to whom::

        level      r=0      r=1      r=2      r=3
            0  2,3->r2  2,3->r3  0,1->r0  0,1->r1
            1    1->r1    0->r0    3->r3    2->r2

    Cost per rank: one message per level, ceil(log2 p) or one less where p is not a power of two;
    n - n_c elements, as few as the ring.
    """
    p, r = comm.size, comm.rank
    chunk = chunks.slices(x, p, offsets)
    arrived = None
    for give, to, keep, sources in levels(p, r):
        outgoing, partial = _chunks(x, chunk, give), _chunks(x, chunk, keep)
        if sources == (to,):  # what follows, in one call
            arrived = comm.scratch(partial.size, x.dtype)
            comm.Sendrecv(outgoing, to, recvbuf=arrived, source=to)
            comm.add(partial, arrived)
            continue
        several = comm.scratch(len(sources) * partial.size, x.dtype)
        rows = several.reshape(len(sources), partial.size)
        receiving = [comm.Irecv(row, source) for row, source in zip(rows, sources, strict=True)]
        sending = comm.Isend(outgoing, to)
        for request, row in zip(receiving, rows, strict=True):
            request.Wait()
            comm.add(partial, row)
        sending.Wait()
    return x[chunk[r]]


def allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place; x (n,) of any dtype.

    The levels of `reduce_scatter` backwards, every message turned round.  For p = 4, the chunks
    that rank r sends, and to whom::

        level      r=0      r=1      r=2      r=3
            1    0->r1    1->r0    2->r3    3->r2
            0  0,1->r2  0,1->r3  2,3->r0  2,3->r1

    Cost per rank: it receives one message per level, n - n_c elements in all.  It sends as much
    if p is a power of two; else some ranks send two messages at a level and others none.
    """
    p, r = comm.size, comm.rank
    chunk = chunks.slices(x, p, offsets)
    for give, to, keep, sources in reversed(levels(p, r)):
        incoming, outgoing = _chunks(x, chunk, give), _chunks(x, chunk, keep)
        if sources == (to,):  # what follows, in one call
            comm.Sendrecv(outgoing, to, recvbuf=incoming, source=to)
            continue
        receiving = comm.Irecv(incoming, to)
        sending = [comm.Isend(outgoing, source) for source in sources]
        comm.wait([receiving, *sending])


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x by its sum over the ranks, in place: halving, then doubling.

    Order of summation: chunk by chunk, that of `reduce_scatter`; so all ranks get equal bits.
    2 log2 p steps and 2 n (p - 1)/p elements per rank, for p a power of two: Rabenseifner's
    algorithm.
    """
    reduce_scatter(comm, x)
    allgather(comm, x)


def _chunks(x: Array, chunk: list[slice], run: tuple[int, int]) -> Array:
    """Return the chunks [first, last) of x, which are neighbours, as one view."""
    first, last = run
    return x[chunk[first].start : chunk[last - 1].stop]


def reduce_scatter_steps(call: Call) -> list[Step]:
    """Return the schedule of `reduce_scatter`; a step is a level."""
    parts = [levels(call.p, rank) for rank in range(call.p)]
    steps = []
    for depth in range(max(map(len, parts))):
        here = [(rank, part[depth]) for rank, part in enumerate(parts) if depth < len(part)]
        elements = [call.sizes[slice(*level.give)].sum() for _, level in here]
        source, dest = [rank for rank, _ in here], [level.to for _, level in here]
        steps.append(Step.of(source, dest, elements, adds=True))
    return steps


def allgather_steps(call: Call) -> list[Step]:
    """Return the schedule of `allgather`: that of `reduce_scatter` backwards."""
    return [step.backwards() for step in reversed(reduce_scatter_steps(call))]


def allreduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `allreduce`."""
    return reduce_scatter_steps(call) + allgather_steps(call)
