"""All-reduce by recursive doubling: one phase, in which every rank adds all of it for itself.

In step i ranks whose numbers differ in bit i exchange what they have and add what comes, so sums
over 1, 2, 4, ... ranks become sums over twice as many::

    p = 4    step 0   0 <-> 1   2 <-> 3
             step 1   0 <-> 2   1 <-> 3

Any p.  With q the largest power of two that is not above p, p - q ranks are too many.  The first
2 (p - q) ranks are pairs of neighbours: before, the even one hands its vector to the odd one,
which adds it and doubles for both; afterwards it gets the sum back.  (MPICH folds the same ranks;
Thakur, Rabenseifner and Gropp 2005.)  The others keep their order and double by their *place*.
"""

from __future__ import annotations

from refimpl.collectives.chunks import Array, Call
from refimpl.collectives.cost import Step
from refimpl.collectives.order import Order, Orders
from refimpl.world.communicator import Communicator


def places(p: int) -> list[int]:
    """Return the ranks that double, by place: a power of two of them.

    >>> places(4), places(3), places(7)
    ([0, 1, 2, 3], [1, 2], [1, 3, 5, 6])
    """
    folded = 2 * (p - (1 << (p.bit_length() - 1)))
    return [*range(1, folded, 2), *range(folded, p)]


def order(p: int) -> Order:
    """Return the order of summation: pairs, pairs of pairs, and so on.

    >>> order(4), order(3)
    (((0, 1), (2, 3)), ((0, 1), 2))
    """
    doubling = places(p)
    folded = p - len(doubling)
    held: list[Order] = [(r - 1, r) if v < folded else r for v, r in enumerate(doubling)]
    while len(held) > 1:
        held = list(zip(held[::2], held[1::2], strict=True))
    return held[0]


def orders(call: Call) -> Orders:
    """Return the order of summation of the whole vector."""
    return [(slice(0, call.n), order(call.p))]


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x (n,) by its sum over the ranks, in place.

    Order of summation: `order`.  Both partners add the same two numbers, one as a + b, the other
    as b + a, which have the same bits; so all ranks do.

    Cost per rank: lg p messages of n elements where p is a power of two; else lg q, one more for
    a rank that doubles for its neighbour, and 1 for that neighbour, in lg q + 2 steps.  Half the
    steps of the `tree`, and no fewer than any other: for the shortest vectors.
    """
    doubling, r = places(comm.size), comm.rank
    folded = comm.size - len(doubling)
    if r < 2 * folded and r % 2 == 0:
        comm.Send(x, r + 1)
        comm.Recv(x, r + 1)
        return
    arrived = comm.scratch(x.size, x.dtype)
    if r < 2 * folded:
        comm.Recv(arrived, r - 1)
        comm.add(x, arrived)
    place, distance = doubling.index(r), 1
    while distance < len(doubling):
        partner = doubling[place ^ distance]
        comm.Sendrecv(x, partner, recvbuf=arrived, source=partner)
        comm.add(x, arrived)
        distance *= 2
    if r < 2 * folded:
        comm.Send(x, r - 1)


def allreduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `allreduce`."""
    doubling = places(call.p)
    folded = range(0, 2 * (call.p - len(doubling)), 2)
    before = [Step.of(folded, [r + 1 for r in folded], call.n, adds=True)] if folded else []
    steps = [
        Step.of(doubling, [doubling[v ^ (1 << i)] for v in range(len(doubling))], call.n, True)
        for i in range(len(doubling).bit_length() - 1)
    ]
    return [*before, *steps, *(step.backwards() for step in before)]
