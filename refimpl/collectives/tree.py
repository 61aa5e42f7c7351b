"""Broadcast and reduce along a binomial tree.

Number the ranks from the root: v = (rank - root) mod p.  The parent of v is v without its lowest
one bit, so 0 is the root and node v has the children v + 1, v + 2, v + 4, ... as far as they
stay below v's lowest one bit and below p.  A message needs ceil(log2 p) steps to reach everybody::

    p = 8        0
            +----+---+
            4    2   1
          +-+-+  |
          6   5  3
          |
          7

Any p: for fewer ranks, cut the picture off; the tree has the same depth as for the next power
of two.
"""

from __future__ import annotations

from refimpl.collectives.chunks import Array, Call
from refimpl.collectives.cost import Step
from refimpl.collectives.order import Order, Orders
from refimpl.world.communicator import Communicator


def parent(v: int) -> int:
    """Return the parent of node v > 0: v without its lowest one bit.

    >>> [parent(v) for v in range(1, 8)]
    [0, 0, 2, 0, 4, 4, 6]
    """
    return v & (v - 1)


def children(p: int, v: int) -> list[int]:
    """Return the children of node v, nearest first.

    >>> children(8, 0), children(8, 4), children(7, 6)
    ([1, 2, 4], [5, 6], [])
    """
    bits = [1 << i for i in range((p - 1).bit_length())]
    return [v + bit for bit in bits if bit < ((v & -v) or p) and v + bit < p]


def order(p: int, root: int = 0, v: int = 0) -> Order:
    """Return the order of summation: a node adds its children's sums to its own, nearest first.

    >>> order(4), order(4, root=1)
    (((0, 1), (2, 3)), ((1, 2), (3, 0)))
    """
    total: Order = (v + root) % p
    for child in children(p, v):
        total = (total, order(p, root, child))
    return total


def orders(call: Call) -> Orders:
    """Return the order of summation of the whole vector, for `reduce` and `allreduce`."""
    return [(slice(0, call.n), order(call.p, call.root))]


def broadcast(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace x by the root's, in place; x (n,) of any dtype.

    The far children are served first, because they have most to pass on.  Every rank but the
    root receives one message of n elements; the root sends ceil(log2 p) of them.
    Good for short vectors: T = ceil(log2 p) (alpha + V beta), V the bytes of the vector.
    """
    p = comm.size
    v = (comm.rank - root) % p
    if v > 0:
        comm.Recv(x, source=(parent(v) + root) % p)
    for child in reversed(children(p, v)):
        comm.Send(x, dest=(child + root) % p)


def reduce(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace the root's x (n,) by the sum over the ranks, in place; the others' are undefined.

    Order of summation: `order`; with v = (rank - root) mod p and s(v) the sum that node v sends
    up, s(v) = x(v) + s(v + 1) + s(v + 2) + s(v + 4) + ..., added from left to right.
    Every rank but the root sends one message of n elements.
    """
    p = comm.size
    v = (comm.rank - root) % p
    arrived = comm.scratch(x.size, x.dtype)
    for child in children(p, v):
        comm.Recv(arrived, source=(child + root) % p)
        comm.add(x, arrived)
    if v > 0:
        comm.Send(x, dest=(parent(v) + root) % p)


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x by its sum over the ranks, in place: `reduce` to rank 0, then `broadcast`.

    Order of summation: that of `reduce`.  2 ceil(log2 p) steps, all of n elements: for short
    vectors only.
    """
    reduce(comm, x)
    broadcast(comm, x)


def reduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `reduce`: children at distance 1, then 2, then 4, ..."""
    p, root = call.p, call.root
    steps = []
    for distance in (1 << i for i in range((p - 1).bit_length())):
        senders = [v for v in range(p) if v & -v == distance]
        source = [(v + root) % p for v in senders]
        dest = [(parent(v) + root) % p for v in senders]
        steps.append(Step.of(source, dest, call.n, adds=True))
    return steps


def broadcast_steps(call: Call) -> list[Step]:
    """Return the schedule of `broadcast`: that of `reduce` backwards."""
    return [step.backwards() for step in reversed(reduce_steps(call))]


def allreduce_steps(call: Call) -> list[Step]:
    """Return the schedule of `allreduce`."""
    return reduce_steps(call) + broadcast_steps(call)
