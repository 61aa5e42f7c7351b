"""The hierarchical collectives as text; see `refimpl.collectives.explain`."""

from __future__ import annotations

from refimpl.collectives import hierarchical
from refimpl.collectives.hierarchical_steps import order, reduce_order
from refimpl.collectives.moves import heard
from refimpl.collectives.order import formula
from refimpl.collectives.text import held, orders, ranks, section, table, wrapped
from refimpl.support.errors import require
from refimpl.support.text import plural


def _nodes(p: int, k: int) -> tuple[int, ...]:
    require(k >= 1, f"nodes of {k} ranks: a node holds at least one")
    return tuple(rank // k for rank in range(p))


def stages(p: int, k: int) -> str:
    """Return which chunks are in their places after each stage of the hierarchical all-gather.

    One without messages, on one node or with nodes of one rank, is there all the same.
    """
    moves = heard("hierarchical", "allgather", p, k)
    across = [stage for stage in moves.sending if stage.moves[0].link == "inter"]
    least, there = (p, across[-1].after) if across else (0, moves.start)
    runs = [[has[slot] for slot in sorted(has) if slot >= least] for has in there]
    within = moves.stages[-1].after
    rows = [
        ("at the start", [held(set(has), p) for has in moves.start]),
        ("1 across", [f"[{' '.join(str(block.chunk) for block in run)}]" for run in runs]),
        ("2 re-order", [held({block.chunk for block in run}, p) for run in runs]),
        ("3 within", [held(set(has), p) for has in within]),
    ]
    return table("", rows, ranks(p))


def hierarchical_allgather(p: int, k: int) -> str:
    """Return MiCS's three stages: who holds what after each, and what stage 2 is for."""
    place = hierarchical.grid(_nodes(p, k))
    wrong = " ".join(str(c) for local in range(k) for c in hierarchical.column(place, local))
    right = " ".join(map(str, range(p)))
    verdict = (
        f"without stage 2, stage 3 would lay the {k} runs end to end:\n"
        f"    {wrong}   <- the wrong order\n    {right}   <- the order of x"
    )
    if wrong == right:
        verdict = "here the runs of stage 1, laid end to end, would be in order without stage 2"
    entering = f"{p - k} of {p} chunks enter each node, where a flat ring brings {p - 1}"
    if len(place) == 1:
        entering = "nothing crosses: there is one node"
    return section(
        f"hierarchical all-gather, p = {p} ranks on {plural(len(place), 'node')} of k = {k}",
        "the chunks that are in their places in x after each stage; [those in scratch]",
        stages(p, k),
        verdict,
        entering,
    )


def mirror(p: int, k: int) -> str:
    """Return which chunks each rank still works on after each stage of the reduce-scatter."""
    place = hierarchical.grid(_nodes(p, k))
    kept = [hierarchical.column(place, rank % k) for rank in range(p)]
    rows = [
        ("at the start", [held(set(range(p)), p)] * p),
        ("1 within", [held(set(keep), p) for keep in kept]),
        ("2 re-order", [f"[{' '.join(map(str, keep))}]" for keep in kept]),
        ("3 across", [held({rank}, p) for rank in range(p)]),
    ]
    return table("", rows, ranks(p))


def hierarchical_reduce_scatter(p: int, k: int) -> str:
    """Return the mirror image of the all-gather, and the order of summation."""
    place = hierarchical.grid(_nodes(p, k))
    return section(
        f"hierarchical reduce-scatter, p = {p} ranks on {plural(len(place), 'node')} of k = {k}",
        "the chunks that rank r still works on; [those in scratch]\n"
        "they are sums over its node from stage 1 on, and over all ranks after stage 3",
        mirror(p, k),
        orders(lambda chunk: order(place, *hierarchical.seat(place, chunk)), p),
    )


def hierarchical_allreduce(p: int, k: int) -> str:
    """Return the two-level all-reduce: what each rank holds after each stage."""
    place = hierarchical.grid(_nodes(p, k))
    count = len(place)
    rows = [
        ("1 within", [f"chunk {rank % k} (node)" for rank in range(p)]),
        ("2 across", [f"chunk {rank % k} (all)" for rank in range(p)]),
        ("3 within", ["x (all)"] * p),
    ]
    lines = "\n".join(
        wrapped(f"  chunk {local}, part {node}: {formula(order(place, node, local))}")
        for local in range(k)
        for node in range(count)
    )
    return section(
        f"hierarchical all-reduce, p = {p} ranks on {plural(count, 'node')} of k = {k}",
        f"x is cut into {plural(k, 'chunk')}, one per local index, and each chunk into "
        f"{plural(count, 'part')}, one per node",
        "what rank r holds the sum of after each stage, over its node or over all ranks",
        table("", rows, ranks(p)),
        f"order of summation\n{lines}",
    )


def hierarchical_broadcast(p: int, k: int) -> str:
    """Return the two-level broadcast from rank 0."""
    return section(
        _rooted("broadcast from", p, k),
        "a tree across the nodes, of their first ranks; then one inside each node",
        heard("hierarchical", "broadcast", p, k).arrows(),
    )


def hierarchical_reduce(p: int, k: int) -> str:
    """Return the two-level reduce to rank 0, and the order of summation."""
    return section(
        _rooted("reduce to", p, k),
        "a tree inside each node, to its first rank; then one across the nodes",
        heard("hierarchical", "reduce", p, k).arrows(),
        wrapped(f"order of summation: {formula(reduce_order(_nodes(p, k)))}"),
    )


def _rooted(what: str, p: int, k: int) -> str:
    nodes = plural(len(hierarchical.grid(_nodes(p, k))), "node")
    return f"hierarchical {what} rank 0, p = {p} ranks on {nodes} of k = {k}"
