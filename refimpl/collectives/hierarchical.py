"""Collectives on two levels: across the nodes, and inside each.

The ranks lie on N nodes of k ranks; ``place[i][j]`` is local rank j of node i.  All messages
between nodes run among *peers*, ranks with the same local index j on different nodes; k such
groups work side by side, and together they carry each byte into a node once::

    all-gather         1  across   k parallel all-gathers among peers
                       2           re-order: what arrived is every k-th chunk, not a run of them
                       3  within   N all-gathers, one for the chunks of each node
    reduce-scatter     the mirror image: within (N reduce-scatters), re-order, across
    all-reduce         within: reduce-scatter;  across: k parallel all-reduces of n/k elements;
                       within: all-gather

The all-gather is that of MiCS (Zhang et al., PVLDB 16(1), 2022).  Between nodes each rank sends
(N - 1) chunks, where a flat ring's edge between two nodes carries p - 1: (p - k)/p of the vector
instead of (p - 1)/p enters a node.  For 2 nodes x 2 ranks that is 1/2 instead of 3/4.

Nodes must hold equally many of the communicator's ranks; other cases are refused.  On one node,
step 1 has one member and sends nothing, so that the ring inside the node is left; with one
rank on each node step 3 sends nothing, and the ring across the nodes is left.  Neither is a
special case of the code.  The ranks of a node need not be neighbours.

Both levels use the ring (`refimpl.collectives.ring`), and the tree for broadcast and reduce; the
schedules, from which the costs follow, are in `refimpl.collectives.hierarchical_steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from refimpl.collectives import chunks, ring, tree
from refimpl.collectives.order import Order, around, left_to_right
from refimpl.support.errors import UserError
from refimpl.world.topology import node_members

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


def grid(nodes: tuple[int, ...]) -> list[list[int]]:
    """Return ``place``, where ``place[i][j]`` is local rank j of the i-th node.

    >>> grid((0, 0, 1, 1))
    [[0, 1], [2, 3]]

    Raises
    ------
    UserError
        If the nodes hold unequal numbers of ranks.
    """
    place = node_members(nodes)
    held = [len(members) for members in place]
    if len(set(held)) > 1:
        raise UserError(
            f"hierarchical collectives need equally many ranks on each node, but of these "
            f"{len(nodes)} ranks the nodes hold {', '.join(map(str, held))}: choose a number of "
            f"ranks that fills the nodes, or the collectives ring or halving-doubling"
        )
    return place


def column(place: list[list[int]], local: int) -> list[int]:
    """Return the chunks that the peers with this local index own, by node.

    >>> column([[0, 1], [2, 3]], local=1)
    [1, 3]
    """
    return [members[local] for members in place]


def order(nodes: tuple[int, ...], chunk: int) -> Order:
    """Return the order of summation of a chunk of the reduce-scatter.

    Inside each node round the ring to the owner's local index; then those sums, from the node
    after the owner's round to the owner's.

    >>> order((0, 0, 1, 1), chunk=0)
    ((3, 2), (1, 0))
    """
    place = grid(nodes)
    i, j = next((i, m.index(chunk)) for i, m in enumerate(place) if chunk in m)
    return _order(place, i, j)


def _order(place: list[list[int]], i: int, j: int) -> Order:
    k = len(place[0])
    inside = [left_to_right([members[local] for local in around(k, j)]) for members in place]
    return left_to_right([inside[node] for node in around(len(place), i)])


def allreduce_order(nodes: tuple[int, ...], local: int, node: int) -> Order:
    """Return the order of summation in part ``node`` of chunk ``local`` of the all-reduce.

    The vector is cut into k chunks, one per local index, and each of these into N parts.

    >>> allreduce_order((0, 0, 1, 1), local=1, node=0)
    ((2, 3), (0, 1))
    """
    return _order(grid(nodes), node, local)


def allgather(comm: Communicator, x: NDArray, offsets: Sequence[int] | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place, in MiCS's three stages.

    Parameters
    ----------
    comm : Communicator
        p ranks, equally many on each of N nodes.  All of them call, with the same length, dtype
        and offsets.
    x : (n,) array, any dtype
        Chunk r is rank r's on entry; all chunks are there afterwards.
    offsets : (p + 1,) sequence of int, optional
        Cut points of chunks of unequal length; by default `chunks.offsets`.

    Raises
    ------
    UserError
        If the nodes hold unequal numbers of ranks.  On every rank, before any message.

    Notes
    -----
    For p = 4 on 2 nodes of 2, the chunks that are in their places in x after each stage, and
    [those in scratch]::

                          r=0      r=1      r=2      r=3
        at the start  0 . . .  . 1 . .  . . 2 .  . . . 3
        1 across        [0 2]    [1 3]    [0 2]    [1 3]
        2 re-order    0 . 2 .  . 1 . 3  0 . 2 .  . 1 . 3
        3 within      0 1 2 3  0 1 2 3  0 1 2 3  0 1 2 3

    Cost per rank: N - 1 messages of one chunk between nodes; N (k - 1) messages of one chunk
    inside, in k - 1 steps.
    """
    place = grid(comm.nodes)
    within, across = comm.levels()
    chunk = chunks.slices(x, comm.size, offsets)
    j, k = within.rank, within.size
    left, right = (j - 1) % k, (j + 1) % k

    # 1. Our peers' chunks, in order of nodes: a run in scratch, every k-th chunk in x.
    theirs = column(place, j)
    cuts = _cuts(chunk, theirs)
    gathered = comm.scratch(cuts[-1], x.dtype)
    run = chunks.slices(gathered, across.size, cuts)
    gathered[run[across.rank]] = x[chunk[comm.rank]]
    ring.allgather(across, gathered, cuts)

    # 2. Each to its place.
    for place_in_run, owner in zip(run, theirs, strict=True):
        x[chunk[owner]] = gathered[place_in_run]

    # 3. The chunks of all nodes go round inside this node, one ring for each, together.
    for step in range(k - 1):
        incoming = column(place, ring.gathered(k, left, step))
        outgoing = column(place, ring.gathered(k, j, step))
        receiving = [within.Irecv(x[chunk[owner]], left) for owner in incoming]
        sending = [within.Isend(x[chunk[owner]], right) for owner in outgoing]
        within.wait(receiving + sending)


def reduce_scatter(
    comm: Communicator, x: NDArray, offsets: Sequence[int] | None = None
) -> NDArray:
    """Sum x over the ranks; return the view of x that is this rank's chunk of the sum.

    The stages of `allgather` backwards: N reduce-scatters inside the node, one for the chunks of
    each node; re-order; k parallel reduce-scatters among peers.  Order of summation: `order`.
    Parameters, errors and cost are those of `allgather`; x has no defined content afterwards
    but for the returned chunk.

    For p = 4 on 2 nodes of 2, the chunks that rank r still works on, and [those in scratch];
    sums over its node from stage 1 on, over all ranks after stage 3::

                          r=0      r=1      r=2      r=3
        at the start  0 1 2 3  0 1 2 3  0 1 2 3  0 1 2 3
        1 within      0 . 2 .  . 1 . 3  0 . 2 .  . 1 . 3
        2 re-order      [0 2]    [1 3]    [0 2]    [1 3]
        3 across      0 . . .  . 1 . .  . . 2 .  . . . 3
    """
    place = grid(comm.nodes)
    within, across = comm.levels()
    chunk = chunks.slices(x, comm.size, offsets)
    j, k = within.rank, within.size
    left, right = (j - 1) % k, (j + 1) % k

    # 1. Chunks go round inside this node, one ring for the chunks of each node, together; those
    #    that our peers own stay with us, summed over the node.
    for step in range(k - 1):
        incoming = [x[chunk[owner]] for owner in column(place, ring.reduced(k, left, step))]
        outgoing = [x[chunk[owner]] for owner in column(place, ring.reduced(k, j, step))]
        cuts = list(accumulate((partial.size for partial in incoming), initial=0))
        arrived = comm.scratch(cuts[-1], x.dtype)
        arrived = [arrived[run] for run in chunks.slices(arrived, len(incoming), cuts)]
        receiving = [within.Irecv(part, left) for part in arrived]
        sending = [within.Isend(partial, right) for partial in outgoing]
        for request, part, partial in zip(receiving, arrived, incoming, strict=True):
            request.Wait()
            partial += part
        within.wait(sending)

    # 2. Together, in order of nodes.
    theirs = column(place, j)
    cuts = _cuts(chunk, theirs)
    gathered = comm.scratch(cuts[-1], x.dtype)
    for place_in_run, owner in zip(
        chunks.slices(gathered, across.size, cuts), theirs, strict=True
    ):
        gathered[place_in_run] = x[chunk[owner]]

    # 3. Our peers' parts, and ours.
    own = x[chunk[comm.rank]]
    own[:] = ring.reduce_scatter(across, gathered, cuts)
    return own


def allreduce(comm: Communicator, x: NDArray) -> None:
    """Replace x by its sum over the ranks, in place, on two levels.

    x is cut into k chunks, one per local index; k all-reduces of one chunk each cross the nodes
    side by side.  Order of summation: `allreduce_order`.

    Cost per rank: 2 (k - 1) messages and 2 n (k - 1)/k elements inside the node, 2 (N - 1)
    messages and 2 (n/k) (N - 1)/N elements between nodes, where k and N divide n.
    """
    grid(comm.nodes)
    within, across = comm.levels()
    chunk = ring.reduce_scatter(within, x)
    ring.allreduce(across, chunk)
    ring.allgather(within, x)


def broadcast(comm: Communicator, x: NDArray, root: int = 0) -> None:
    """Replace x by the root's, in place: to the root's peers across nodes, then inside each node.

    N - 1 messages of n elements cross between nodes, one into each node.
    """
    node, local = seat(grid(comm.nodes), root)
    within, across = comm.levels()
    if within.rank == local:
        tree.broadcast(across, x, node)
    tree.broadcast(within, x, local)


def reduce(comm: Communicator, x: NDArray, root: int = 0) -> None:
    """Replace the root's x by the sum over the ranks, in place; the others' x is undefined.

    Inside each node to the root's peer, then across the nodes.  Order of summation:
    `reduce_order`.
    """
    node, local = seat(grid(comm.nodes), root)
    within, across = comm.levels()
    tree.reduce(within, x, local)
    if within.rank == local:
        tree.reduce(across, x, node)


def reduce_order(nodes: tuple[int, ...], root: int = 0) -> Order:
    """Return the order of summation of `reduce`: a tree in each node, then a tree of these sums.

    >>> reduce_order((0, 0, 1, 1), root=3)
    ((3, 2), (1, 0))
    """
    place = grid(nodes)
    node, local = seat(place, root)

    def seated(order: Order, leaves: list) -> Order:
        if isinstance(order, int):
            return leaves[order]
        return seated(order[0], leaves), seated(order[1], leaves)

    inside = tree.order(len(place[0]), local)
    return seated(tree.order(len(place), node), [seated(inside, members) for members in place])


def seat(place: list[list[int]], rank: int) -> tuple[int, int]:
    """Return (i, j) of a rank."""
    return next((i, members.index(rank)) for i, members in enumerate(place) if rank in members)


def _cuts(chunk: list[slice], chosen: list[int]) -> list[int]:
    """Return the cut points of the chosen chunks laid end to end."""
    return list(accumulate((chunk[c].stop - chunk[c].start for c in chosen), initial=0))
