"""Schedules as text and as pictures: what each rank sends, and who holds what after each step.

No MPI.  What is sent and held is heard from a run on threads (`refimpl.collectives.moves`), so a
picture cannot say one thing and the algorithm do another; the tables in docstrings and docs/ are
compared with these in the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from refimpl.collectives import halving_doubling, pictures, ring, tree
from refimpl.collectives.chunks import Call
from refimpl.collectives.explain_hierarchical import (
    hierarchical_allgather,
    hierarchical_allreduce,
    hierarchical_broadcast,
    hierarchical_reduce,
    hierarchical_reduce_scatter,
)
from refimpl.collectives.explain_steps import (
    bruck_allgather,
    chain_broadcast,
    doubling_allreduce,
    pairwise_alltoall,
    scatter_allgather,
)
from refimpl.collectives.families import EXPLICIT
from refimpl.collectives.interface import Family
from refimpl.collectives.moves import Moves, Stage, heard
from refimpl.collectives.order import formula
from refimpl.collectives.text import held, orders, ranks, run, section, table, wrapped
from refimpl.support.errors import UserError, listed, require

MOST = 16  # ranks; wider tables cannot be read


# ------------------------------------------------------------------------------------------- ring


def ring_table(moves: Moves) -> str:
    """Return the chunk that each rank sends in each step."""
    rows = []
    for number, stage in enumerate(moves.sending):
        sent = {move.source: str(move.block.chunk) for move in stage.moves}
        rows.append((str(number), [sent[rank] for rank in range(moves.p)]))
    return table("step", rows, ranks(moves.p))


def ring_allgather(p: int) -> str:
    """Return the ring all-gather: what is sent, and which chunks each rank has."""
    found = heard("ring", "allgather", p)
    rows = [("start", [held(set(has), p) for has in found.start])]
    for step, stage in enumerate(found.sending):
        rows.append((str(step), [held(set(has), p) for has in stage.after]))
    return section(
        f"ring all-gather, p = {p}",
        "the chunk that rank r sends to rank r + 1",
        ring_table(found),
        "the chunks that rank r has after the step",
        table("step", rows, ranks(p)),
    )


def ring_reduce_scatter(p: int) -> str:
    """Return the ring reduce-scatter: what is sent, and whose addends are in what arrives."""
    found, rows = heard("ring", "reduce_scatter", p), []
    for step, stage in enumerate(found.sending):
        came = {move.dest: stage.after[move.dest][move.to_slot] for move in stage.moves}
        cells = [f"{came[r].chunk}: {'+'.join(map(str, came[r].ranks))}" for r in range(p)]
        rows.append((str(step), cells))
    parts = [
        "the chunk that rank r sends to rank r + 1",
        ring_table(found),
        "what rank r holds after the step of the chunk that came: the ranks whose parts are in it",
        table("step", rows, ranks(p)),
        orders(lambda chunk: ring.order(p, chunk), p),
    ]
    return section(f"ring reduce-scatter, p = {p}", *parts)


def ring_allreduce(p: int) -> str:
    """Return the ring all-reduce: one after the other."""
    return "\n\n".join([ring_reduce_scatter(p), "then", ring_allgather(p)])


# ------------------------------------------------------------------------------- halving, doubling


def _arrows(stage: Stage, rank: int) -> str:
    """Return the chunks that a rank sends in a step, and to whom: ``0-2->r3,r4``."""
    mine = [move for move in stage.moves if move.source == rank]
    if not mine:
        return "-"
    chunks, to = ({getattr(move, name): None for move in mine} for name in ("from_slot", "dest"))
    return f"{run(range(min(chunks), max(chunks) + 1))}->" + ",".join(f"r{dest}" for dest in to)


def halving_table(moves: Moves) -> str:
    """Return the chunks that each rank sends at each level, and to whom; level 0 is the widest."""
    levels = range(len(moves.sending))
    numbers = reversed(levels) if moves.operation == "allgather" else levels
    rows = [
        (str(number), [_arrows(stage, rank) for rank in range(moves.p)])
        for number, stage in zip(numbers, moves.sending, strict=True)
    ]
    return table("level", rows, ranks(moves.p))


def halving(p: int) -> str:
    """Return the reduce-scatter by recursive halving."""
    return section(
        f"halving-doubling reduce-scatter, p = {p}",
        "the chunks that rank r sends, and to whom; what arrives is added",
        halving_table(heard("halving-doubling", "reduce_scatter", p)),
        orders(lambda chunk: halving_doubling.order(p, chunk), p),
    )


def doubling(p: int) -> str:
    """Return the all-gather by recursive doubling."""
    return section(
        f"halving-doubling all-gather, p = {p}",
        "the chunks that rank r sends, and to whom",
        halving_table(heard("halving-doubling", "allgather", p)),
    )


def halving_allreduce(p: int) -> str:
    """Return the all-reduce by halving, then doubling."""
    return "\n\n".join([halving(p), "then", doubling(p)])


# ------------------------------------------------------------------------------------------- tree


def tree_broadcast(p: int) -> str:
    """Return the broadcast from rank 0."""
    return section(f"tree broadcast from rank 0, p = {p}", heard("tree", "broadcast", p).arrows())


def tree_reduce(p: int) -> str:
    """Return the reduce to rank 0."""
    return section(
        f"tree reduce to rank 0, p = {p}",
        heard("tree", "reduce", p).arrows(),
        wrapped(f"order of summation: {formula(tree.order(p))}"),
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
    "hierarchical-broadcast": hierarchical_broadcast,
    "hierarchical-reduce": hierarchical_reduce,
}
# Whose call a name is for, and which: without an operation, the first that the family has.
_CALLS = {
    name: (family, operation)
    for family in EXPLICIT
    for operation in reversed(family.algorithms)
    for name in (family.name, f"{family.name}-{operation.replace('_', '-')}")
}
_OURS = {_CALLS[name][0].name for name in (*_FLAT, *_ON_NODES)}  # have tables of their own
NAMES = (*_FLAT, *_ON_NODES, *(name for name, call in _CALLS.items() if call[0].name not in _OURS))


def arrows(family: Family, operation: str, p: int, k: int | None) -> str:
    """Return what can be told of any algorithm: who sends to whom, and how it adds."""
    found = heard(family.name, operation, p, k)
    parts = [pictures.title(found), found.arrows()]
    stated = family.algorithms[operation].orders
    if stated is not None:
        each = {
            c: order for part, order in stated(Call.of(p, found.nodes)) for c in range(p)[part]
        }
        parts.append(orders(each.__getitem__, p))
    return section(*parts)


def check(name: str, p: int, k: int | None) -> None:
    """Refuse what cannot be explained; see `explain`."""
    require(1 <= p <= MOST, f"cannot draw {p} ranks: give -p from 1 to {MOST}")
    if name not in NAMES:
        raise UserError(f"nothing to explain under {name!r}: choose one of {listed(NAMES)}")
    if name in _FLAT:
        require(k is None, f"{name} does not depend on nodes: leave -k {k} out")
    elif name in _ON_NODES:
        require(k is not None or p == 1, f"{name} needs -k, the ranks of a node")
        require(k is None or k <= p, f"{name}: {p} ranks fill no node of -k {k}: give at most {p}")


def explain(name: str, p: int, k: int | None = None) -> str:
    """Return the schedule of an algorithm on p ranks as text.

    ``name``: one of `NAMES`: a family, or a family and an operation.  ``p``: ranks, 1 to 16.
    ``k``: ranks per node, which divides p; for the hierarchical ones, which need it.  A family
    that has no tables here is told by `arrows`.

    Raises `UserError` if the name is unknown, or p or k do not fit.

    >>> print(explain("tree-broadcast", 4))
    tree broadcast from rank 0, p = 4
    =================================
    <BLANKLINE>
    step
       0  0->2
       1  0->1  2->3
    """
    check(name, p, k)
    if p == 1:
        return f"{name}, p = 1: one rank has everything, and nothing is sent"
    if name in _FLAT:
        return _FLAT[name](p)
    if name in _ON_NODES:
        assert k is not None
        return _ON_NODES[name](p, k)
    return arrows(*_CALLS[name], p, k)


def picture(name: str, p: int, k: int | None = None) -> str:
    """Return the same as a picture that moves, SVG; see `explain`."""
    check(name, p, k)
    require(p > 1, f"{name} on one rank sends nothing, and there is nothing to draw: give -p 2")
    family, operation = _CALLS[name]
    return pictures.draw(heard(family.name, operation, p, k))
