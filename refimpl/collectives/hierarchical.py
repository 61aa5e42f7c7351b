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

Both levels use the ring (`refimpl.collectives.ring`), and the tree for broadcast and reduce.  The
all-gather and the reduce-scatter stand here twice: plainly, stage by stage, and with the rings of
stage 3 turning together, which is what is used.  Schedules and orders of summation are in
`refimpl.collectives.hierarchical_steps`.
"""

from __future__ import annotations

from itertools import accumulate

from refimpl.collectives import chunks, ring, tree
from refimpl.collectives.chunks import Array, Offsets
from refimpl.support.errors import UserError
from refimpl.world.communicator import Communicator
from refimpl.world.topology import node_members


def uneven(nodes: tuple[int, ...]) -> str | None:
    """Return why the collectives cannot run on ranks that lie on these nodes; None if they can."""
    held = [len(members) for members in node_members(nodes)]
    if len(set(held)) == 1:
        return None
    return (
        f"hierarchical collectives need equally many ranks on each node, but of these "
        f"{len(nodes)} ranks the nodes hold {', '.join(map(str, held))}: choose a number of "
        f"ranks that fills the nodes, or the collectives ring or halving-doubling"
    )


def grid(nodes: tuple[int, ...]) -> list[list[int]]:
    """Return ``place``, where ``place[i][j]`` is local rank j of the i-th node.

    >>> grid((0, 0, 1, 1))
    [[0, 1], [2, 3]]

    Raises `UserError` if the nodes hold unequal numbers of ranks.
    """
    refusal = uneven(nodes)
    if refusal is not None:
        raise UserError(refusal)
    return node_members(nodes)


def column(place: list[list[int]], local: int) -> list[int]:
    """Return the chunks that the peers with this local index own, by node.

    >>> column([[0, 1], [2, 3]], local=1)
    [1, 3]
    """
    return [members[local] for members in place]


def seat(place: list[list[int]], rank: int) -> tuple[int, int]:
    """Return (i, j) of a rank.

    >>> seat([[0, 1], [2, 3]], rank=2)
    (1, 0)
    """
    return next((i, members.index(rank)) for i, members in enumerate(place) if rank in members)


# ------------------------------------------------------------------------ plainly, stage by stage


def plain_allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place, one all-gather after the other.

    MiCS's three stages.  What `allgather` does, with the same messages; only those inside the
    node come in N (k - 1) steps of one instead of k - 1 steps of N.
    """
    place = grid(comm.nodes)
    within, across = comm.levels()
    chunk = chunks.slices(x, comm.size, offsets)
    _gather(across, x, [chunk[owner] for owner in column(place, within.rank)])  # 1, 2
    for members in place:  # 3
        _gather(within, x, [chunk[owner] for owner in members])


def plain_reduce_scatter(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Sum x; return the view of x that is this rank's chunk of the sum: the stages backwards.

    What `reduce_scatter` does, to the last bit, with the same messages; those inside the node
    come in N (k - 1) steps of one.
    """
    place = grid(comm.nodes)
    within, across = comm.levels()
    chunk = chunks.slices(x, comm.size, offsets)
    for members in place:
        _reduce_scatter(within, x, [chunk[owner] for owner in members])
    _reduce_scatter(across, x, [chunk[owner] for owner in column(place, within.rank)])
    return x[chunk[comm.rank]]


def _gather(comm: Communicator, x: Array, owned: list[slice]) -> None:
    """Fill the parts of x that the ranks of comm own, wherever they lie."""
    run, cut = _run(comm, x, owned)
    place_in_run = chunks.between(cut)
    run[place_in_run[comm.rank]] = x[owned[comm.rank]]
    ring.allgather(comm, run, cut)
    for there, here in zip(owned, place_in_run, strict=True):  # stage 2: each to its place
        x[there] = run[here]


def _reduce_scatter(comm: Communicator, x: Array, owned: list[slice]) -> None:
    """Set the part of x that this rank owns to its sum over comm; the others' are undefined."""
    run, cut = _run(comm, x, owned)
    for there, here in zip(owned, chunks.between(cut), strict=True):
        run[here] = x[there]
    x[owned[comm.rank]] = ring.reduce_scatter(comm, run, cut)


def _run(comm: Communicator, x: Array, owned: list[slice]) -> tuple[Array, list[int]]:
    """Return scratch for these parts of x end to end, and the cut points between them."""
    cut = list(accumulate((part.stop - part.start for part in owned), initial=0))
    return comm.scratch(cut[-1], x.dtype, slot=1), cut


# ------------------------------------------------------------------------------ and as it is used


def allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place, in MiCS's three stages.

    Parameters are those of `ring.allgather`; the p ranks lie equally many on each of N nodes.
    Raises `UserError` if they do not: on every rank, before any message.

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

    # 1. Our peers' chunks, a run in scratch; 2. each to its place, every k-th chunk of x.
    _gather(across, x, [chunk[owner] for owner in column(place, j)])

    # 3. The chunks of all nodes go round inside this node, one ring for each, together.
    for step in range(k - 1):
        incoming = column(place, ring.gathered(k, left, step))
        outgoing = column(place, ring.gathered(k, j, step))
        receiving = [within.Irecv(x[chunk[owner]], left) for owner in incoming]
        sending = [within.Isend(x[chunk[owner]], right) for owner in outgoing]
        within.wait(receiving + sending)


def reduce_scatter(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Sum x over the ranks; return the view of x that is this rank's chunk of the sum.

    The stages of `allgather` backwards: N reduce-scatters inside the node, one for the chunks of
    each node; re-order; k parallel reduce-scatters among peers.  Parameters, errors and cost are
    those of `allgather`; x has no defined content afterwards but for the returned chunk.  Order of
    summation: `hierarchical_steps.order`.

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
        cut = list(accumulate((partial.size for partial in incoming), initial=0))
        scratch = comm.scratch(cut[-1], x.dtype)
        arrived = [scratch[part] for part in chunks.between(cut)]
        receiving = [within.Irecv(part, left) for part in arrived]
        sending = [within.Isend(partial, right) for partial in outgoing]
        for request, part, partial in zip(receiving, arrived, incoming, strict=True):
            request.Wait()
            comm.add(partial, part)
        within.wait(sending)

    # 2. Together, in order of nodes; 3. our peers' parts, and ours.
    _reduce_scatter(across, x, [chunk[owner] for owner in column(place, j)])
    return x[chunk[comm.rank]]


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x by its sum over the ranks, in place, on two levels.

    x is cut into k chunks, one per local index; k all-reduces of one chunk each cross the nodes
    side by side.  Order of summation: `hierarchical_steps.order`.

    Cost per rank: 2 (k - 1) messages and 2 n (k - 1)/k elements inside the node, 2 (N - 1)
    messages and 2 (n/k) (N - 1)/N elements between nodes, where k and N divide n.
    """
    grid(comm.nodes)
    within, across = comm.levels()
    chunk = ring.reduce_scatter(within, x)
    ring.allreduce(across, chunk)
    ring.allgather(within, x)


def broadcast(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace x by the root's, in place: to the root's peers across nodes, then inside each node.

    N - 1 messages of n elements cross between nodes, one into each node.
    """
    node, local = seat(grid(comm.nodes), root)
    within, across = comm.levels()
    if within.rank == local:
        tree.broadcast(across, x, node)
    tree.broadcast(within, x, local)


def reduce(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace the root's x by the sum over the ranks, in place; the others' x is undefined.

    Inside each node to the root's peer, then across the nodes.  Order of summation:
    `hierarchical_steps.reduce_order`.
    """
    node, local = seat(grid(comm.nodes), root)
    within, across = comm.levels()
    tree.reduce(within, x, local)
    if within.rank == local:
        tree.reduce(across, x, node)
