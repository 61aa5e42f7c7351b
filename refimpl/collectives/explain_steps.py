"""The algorithms for the shortest and the longest vectors as text; see `explain`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from refimpl.collectives import bruck, chain, pairwise, recursive_doubling, ring, tree
from refimpl.collectives.chunks import Call
from refimpl.collectives.cost import Step
from refimpl.collectives.order import formula
from refimpl.collectives.scatter_allgather import end
from refimpl.collectives.text import held, ranks, run, section, table


def pairs(steps: Iterable[Step]) -> str:
    """Return who sends to whom in each step."""
    lines = []
    for number, step in enumerate(steps):
        sent = set(zip(step.source.tolist(), step.dest.tolist(), strict=True))
        cells = [
            f"{a}<->{b}" if (b, a) in sent else f"{a}->{b}"
            for a, b in sorted(sent)
            if a < b or (b, a) not in sent
        ]
        lines.append(f"{number:>4}  " + "  ".join(cells))
    return "\n".join(["step", *lines])


def doubling_allreduce(p: int) -> str:
    """Return the all-reduce by recursive doubling."""
    back = "" if len(recursive_doubling.places(p)) == p else "; in the last step it is the sum"
    return section(
        f"recursive-doubling all-reduce, p = {p}",
        f"who sends all that it has to whom; what arrives is added{back}",
        pairs(recursive_doubling.allreduce_steps(Call.of(1, (0,) * p))),
        f"order of summation\n  {formula(recursive_doubling.order(p))}",
    )


def bruck_table(p: int) -> str:
    """Return the chunks that each rank sends in each step, and to whom."""
    rows = [
        (
            str(step),
            [f"{run(bruck.sent(p, rank, number))}->r{(rank - distance) % p}" for rank in range(p)],
        )
        for step, (distance, number) in enumerate(bruck.rounds(p))
    ]
    return table("step", rows, ranks(p))


def bruck_allgather(p: int) -> str:
    """Return Bruck's all-gather: what is sent, and which chunks each rank has."""
    rows = [("start", [held({rank}, p) for rank in range(p)])]
    for step, (distance, number) in enumerate(bruck.rounds(p)):
        has = [held(set(bruck.sent(p, rank, distance + number)), p) for rank in range(p)]
        rows.append((str(step), has))
    return section(
        f"bruck all-gather, p = {p}",
        "the chunks that rank r sends, and to whom",
        bruck_table(p),
        "the chunks that rank r has after the step",
        table("step", rows, ranks(p)),
    )


def scatter_table(p: int) -> str:
    """Return the chunks that each node sends in each step of the scatter, and to whom."""
    rows = []
    for number, step in enumerate(tree.broadcast_steps(Call.of(1, (0,) * p))):
        to = dict(zip(step.source.tolist(), step.dest.tolist(), strict=True))
        cells = [
            f"{run(range(to[v], end(p, to[v])))}->v{to[v]}" if v in to else "-" for v in range(p)
        ]
        rows.append((str(number), cells))
    return table("step", rows, [f"v={v}" for v in range(p)])


def scatter_allgather(p: int) -> str:
    """Return the broadcast by a scatter and an all-gather."""
    rows = [(str(s), [str(ring.gathered(p, v, s)) for v in range(p)]) for s in range(p - 1)]
    return section(
        f"scatter-allgather broadcast, p = {p}; v = (rank - root) mod p",
        "scatter: the chunks that node v sends, and to whom",
        scatter_table(p),
        "all-gather: the chunk that node v sends to node v + 1",
        table("step", rows, [f"v={v}" for v in range(p)]),
    )


def chain_table(p: int, count: int) -> str:
    """Return the segment that every link carries in each step, of so many."""
    lines = []
    steps = chain.steps_along(Call.of(count, (0,) * p), np.ones(count, np.int64))
    for s, step in enumerate(steps):
        senders = step.source.tolist()
        cells = [str(s - v) if v in senders else "" for v in range(p - 1)]
        lines.append((str(s), cells))
    return table("step", lines, [f"{v}->{v + 1}" for v in range(p - 1)])


def chain_broadcast(p: int) -> str:
    """Return the broadcast along a chain of three segments."""
    return section(
        f"chain broadcast from rank 0 in 3 segments, p = {p}",
        "the segment that is on its way",
        chain_table(p, 3),
    )


def pairwise_table(p: int) -> str:
    """Return to whom each rank sends in each step."""
    rows = [
        (str(step), [str(pairwise.receiver(p, rank, step)) for rank in range(p)])
        for step in range(p - 1)
    ]
    return table("step", rows, ranks(p))


def pairwise_alltoall(p: int) -> str:
    """Return the all-to-all in pairs."""
    return section(
        f"pairwise all-to-all, p = {p}",
        "the rank to which rank r sends that rank's chunk",
        pairwise_table(p),
    )
