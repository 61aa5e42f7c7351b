"""Schedules as text: what each rank sends, and who holds what after each step.

Pure functions, no MPI.  Everything is derived from the index functions that the loops use, so a
picture cannot say one thing and the algorithm do another; the tables in docstrings and docs/ are
compared with these in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refimpl.collectives import halving_doubling, ring, tree
from refimpl.collectives.chunks import Call
from refimpl.collectives.explain_hierarchical import (
    hierarchical_allgather,
    hierarchical_allreduce,
    hierarchical_reduce_scatter,
)
from refimpl.collectives.explain_steps import (
    bruck_allgather,
    chain_broadcast,
    doubling_allreduce,
    pairs,
    pairwise_alltoall,
    scatter_allgather,
)
from refimpl.collectives.order import formula
from refimpl.collectives.text import held, orders, ranks, section, table
from refimpl.support.errors import UserError, listed, require

MOST = 16  # ranks; wider tables cannot be read


# ------------------------------------------------------------------------------------------- ring


def ring_table(p: int, sent: Callable[[int, int, int], int]) -> str:
    """Return the chunk that each rank sends in each step, by an index function of the ring."""
    rows = [(str(s), [str(sent(p, rank, s)) for rank in range(p)]) for s in range(p - 1)]
    return table("step", rows, ranks(p))


def ring_allgather(p: int) -> str:
    """Return the ring all-gather: what is sent, and which chunks each rank has."""
    has = [{rank} for rank in range(p)]
    rows = [("start", [held(have, p) for have in has])]
    for step in range(p - 1):
        sent = [ring.gathered(p, rank, step) for rank in range(p)]
        assert all(sent[rank] in has[rank] for rank in range(p))
        for rank in range(p):
            has[rank].add(sent[(rank - 1) % p])
        rows.append((str(step), [held(have, p) for have in has]))
    return section(
        f"ring all-gather, p = {p}",
        "the chunk that rank r sends to rank r + 1",
        ring_table(p, ring.gathered),
        "the chunks that rank r has after the step",
        table("step", rows, ranks(p)),
    )


def ring_reduce_scatter(p: int) -> str:
    """Return the ring reduce-scatter: what is sent, and whose addends are in what arrives."""
    inside = {(rank, chunk): str(rank) for rank in range(p) for chunk in range(p)}
    rows = []
    for step in range(p - 1):
        sent = [ring.reduced(p, rank, step) for rank in range(p)]
        arriving = {(rank + 1) % p: inside[rank, sent[rank]] for rank in range(p)}
        cells = []
        for rank in range(p):
            chunk = sent[(rank - 1) % p]
            inside[rank, chunk] = f"{arriving[rank]}+{rank}"
            cells.append(f"{chunk}: {inside[rank, chunk]}")
        rows.append((str(step), cells))
    parts = [
        "the chunk that rank r sends to rank r + 1",
        ring_table(p, ring.reduced),
        "what rank r holds after the step of the chunk that came: the ranks whose parts are in it",
        table("step", rows, ranks(p)),
        orders(lambda chunk: ring.order(p, chunk), p),
    ]
    return section(f"ring reduce-scatter, p = {p}", *parts)


def ring_allreduce(p: int) -> str:
    """Return the ring all-reduce: one after the other."""
    return "\n\n".join([ring_reduce_scatter(p), "then", ring_allgather(p)])


# ------------------------------------------------------------------------------- halving, doubling


def _run(first: int, last: int) -> str:
    """Return the chunks [first, last) as text: ``0``, ``0,1`` or ``0-3``."""
    if last - first <= 2:
        return ",".join(map(str, range(first, last)))
    return f"{first}-{last - 1}"


def _arrow(chunks: tuple[int, int], to: Sequence[int]) -> str:
    return _run(*chunks) + "->" + ",".join(f"r{rank}" for rank in to) if to else "-"


def halving_table(p: int) -> str:
    """Return the chunks that each rank sends at each level of the reduce-scatter, and to whom."""
    levels = [halving_doubling.levels(p, rank) for rank in range(p)]
    depth = max(map(len, levels))
    rows = []
    for d in range(depth):
        cells = [_arrow(at[d].give, [at[d].to]) if d < len(at) else "-" for at in levels]
        rows.append((str(d), cells))
    return table("level", rows, ranks(p))


def doubling_table(p: int) -> str:
    """Return the chunks that each rank sends at each level of the all-gather, and to whom."""
    levels = [halving_doubling.levels(p, rank) for rank in range(p)]
    depth = max(map(len, levels))
    rows = []
    for d in reversed(range(depth)):
        cells = [_arrow(at[d].keep, at[d].sources) if d < len(at) else "-" for at in levels]
        rows.append((str(d), cells))
    return table("level", rows, ranks(p))


def halving(p: int) -> str:
    """Return the reduce-scatter by recursive halving."""
    return section(
        f"halving-doubling reduce-scatter, p = {p}",
        "the chunks that rank r sends, and to whom; what arrives is added",
        halving_table(p),
        orders(lambda chunk: halving_doubling.order(p, chunk), p),
    )


def doubling(p: int) -> str:
    """Return the all-gather by recursive doubling."""
    return section(
        f"halving-doubling all-gather, p = {p}",
        "the chunks that rank r sends, and to whom",
        doubling_table(p),
    )


def halving_allreduce(p: int) -> str:
    """Return the all-reduce by halving, then doubling."""
    return "\n\n".join([halving(p), "then", doubling(p)])


# ------------------------------------------------------------------------------------------- tree


def tree_table(p: int, operation: str) -> str:
    """Return who sends to whom in each step of the broadcast from, or the reduce to, rank 0."""
    make = {"broadcast": tree.broadcast_steps, "reduce": tree.reduce_steps}[operation]
    return pairs(make(Call.of(1, (0,) * p)))


def tree_broadcast(p: int) -> str:
    """Return the broadcast from rank 0."""
    return section(f"tree broadcast from rank 0, p = {p}", tree_table(p, "broadcast"))


def tree_reduce(p: int) -> str:
    """Return the reduce to rank 0."""
    return section(
        f"tree reduce to rank 0, p = {p}",
        tree_table(p, "reduce"),
        f"order of summation: {formula(tree.order(p))}",
    )


def tree_allreduce(p: int) -> str:
    """Return the all-reduce: one after the other."""
    return "\n\n".join([tree_reduce(p), "then", tree_broadcast(p)])


# ------------------------------------------------------------------------------------- all of them

_FLAT: dict[str, Callable[[int], str]] = {
    "ring": ring_allreduce,
    "ring-allgather": ring_allgather,
    "ring-reduce-scatter": ring_reduce_scatter,
    "ring-allreduce": ring_allreduce,
    "halving-doubling": halving_allreduce,
    "halving-doubling-allgather": doubling,
    "halving-doubling-reduce-scatter": halving,
    "halving-doubling-allreduce": halving_allreduce,
    "tree": tree_allreduce,
    "tree-broadcast": tree_broadcast,
    "tree-reduce": tree_reduce,
    "tree-allreduce": tree_allreduce,
    "recursive-doubling": doubling_allreduce,
    "bruck": bruck_allgather,
    "scatter-allgather": scatter_allgather,
    "chain": chain_broadcast,
    "pairwise": pairwise_alltoall,
}
_ON_NODES: dict[str, Callable[[int, int], str]] = {
    "hierarchical-allgather": hierarchical_allgather,
    "hierarchical-reduce-scatter": hierarchical_reduce_scatter,
    "hierarchical-allreduce": hierarchical_allreduce,
}
NAMES = (*_FLAT, *_ON_NODES)


def explain(name: str, p: int, k: int | None = None) -> str:
    """Return the schedule of an algorithm on p ranks as text.

    ``name``: one of `NAMES`: a family, or a family and an operation.  ``p``: ranks, 1 to 16.
    ``k``: ranks per node, which divides p; for the hierarchical ones, which need it.

    Raises `UserError` if the name is unknown, or p or k do not fit.

    >>> print(explain("tree-broadcast", 4))
    tree broadcast from rank 0, p = 4
    =================================
    <BLANKLINE>
    step
       0  0->2
       1  0->1  2->3
    """
    require(1 <= p <= MOST, f"cannot draw {p} ranks: give -p from 1 to {MOST}")
    if p == 1 and name in NAMES:
        return f"{name}, p = 1: one rank has everything, and nothing is sent"
    if name in _FLAT:
        require(k is None, f"{name} does not depend on nodes: leave -k {k} out")
        return _FLAT[name](p)
    if name in _ON_NODES:
        if k is None:
            raise UserError(f"{name} needs -k, the ranks of a node")
        return _ON_NODES[name](p, k)
    raise UserError(f"nothing to explain under {name!r}: choose one of {listed(NAMES)}")
