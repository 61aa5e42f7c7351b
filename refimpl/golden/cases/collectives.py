"""The first rung: collectives, from a picture that a person can check to the last bit.

    tiny      rank r holds (b + 1) 10^r in place b: digits say which block it is and whose parts
              are in a sum, 3033 being block 2 with the parts of ranks 0, 1 and 3
    uneven    2 p + 1 values of few digits: blocks of unequal length, sums without rounding
    order     values with all their digits: equal bits only in the documented order
    few       fewer values than ranks: some blocks are empty
    none      no values at all

What a rank sends is recorded as it leaves it.  These details are there wherever a message is, but
not where some blocks are empty:

    sent, sent_to, sent_size    each rank's messages in the order in which it sends them, their
                                receivers (-1: no such message) and their lengths
    held                        ring: after each step the block that came, with what was added
    reordered, node_sums        hierarchical: the vector after two of three stages, blocks that
                                are not yet (or no longer) there being 0; `gathered` is the run of
                                blocks in scratch, in order of nodes
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from refimpl import collectives
from refimpl.collectives import chunks, hierarchical
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule, padded
from refimpl.golden.cases.ask import COPIES, EXACT, INTEGERS, ORDER, Answer, Arrays, Settings, case
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.threads import spawn

WORLDS = (1, 2, 3, 4, 8)
SUMS = ("reduce_scatter", "allreduce", "reduce")
FAMILIES = {
    "ring": ("allgather", "reduce_scatter", "allreduce"),
    "halving-doubling": ("allgather", "reduce_scatter", "allreduce"),
    "tree": ("broadcast", "reduce", "allreduce"),
    "hierarchical": ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce"),
    "recursive-doubling": ("allreduce",),
    "bruck": ("allgather",),
    "scatter-allgather": ("broadcast",),
    "chain": ("broadcast",),
    "pairwise": ("alltoall",),
}
NODES = {
    "1x2": (0, 0),
    "2x1": (0, 1),
    "2x2": (0, 0, 1, 1),
    "2x2-interleaved": (0, 1, 0, 1),
    "2x4": (0, 0, 0, 0, 1, 1, 1, 1),
    "4x2": (0, 0, 1, 1, 2, 2, 3, 3),
    "2x3": (0, 0, 0, 1, 1, 1),
    "3x2-mixed": (4, 0, 9, 0, 4, 9),  # numbers that do not rise with the rank, no neighbours
}
SMALL = {"few": (4, 2), "none": (3, 0)}  # ranks and values
SMALL_NODES = {4: (0, 1, 0, 1), 3: (0, 0, 0)}
ONLY_UNEVEN = ("2x3", "3x2-mixed")

# ---------------------------------------------------------------------------------- operations


def allgather(inputs: Arrays, settings: Settings) -> Arrays:
    """Give every rank all blocks: x (ranks, n), block r of row r -> result (ranks, n)."""
    return _run("allgather", inputs["x"], settings)


def reduce_scatter(inputs: Arrays, settings: Settings) -> Arrays:
    """Give every rank its block of the sum: x (ranks, n) -> result (ranks, longest block)."""
    return _run("reduce_scatter", inputs["x"], settings)


def allreduce(inputs: Arrays, settings: Settings) -> Arrays:
    """Give every rank the sum: x (ranks, n) -> result (ranks, n)."""
    return _run("allreduce", inputs["x"], settings)


def broadcast(inputs: Arrays, settings: Settings) -> Arrays:
    """Give every rank the root's: x (ranks, n) -> result (ranks, n)."""
    return _run("broadcast", inputs["x"], settings)


def reduce(inputs: Arrays, settings: Settings) -> Arrays:
    """Give the root the sum: x (ranks, n) -> result (n,)."""
    return _run("reduce", inputs["x"], settings)


def alltoall(inputs: Arrays, settings: Settings) -> Arrays:
    """Give block c of every rank to rank c: x (ranks, n) -> result (ranks, what came)."""
    return _run("alltoall", inputs["x"], settings)


class Sent(Listener):
    """Keeps what one rank sends: receivers and arrays, and x as it is before the second stage."""

    kinds = frozenset({"send"})

    def __init__(self, x: np.ndarray, second: str | None) -> None:
        self.x, self.second = x, second  # the links of a hierarchical collective's second stage
        self.messages: list[tuple[int, np.ndarray]] = []
        self.between: np.ndarray | None = None

    def begin(self, event: Event) -> None:
        if event.link == self.second and self.between is None:
            self.between = self.x.copy()
        self.messages.append((event.peer, event.value.copy()))


def _run(operation: str, x: np.ndarray, settings: Settings) -> Arrays:
    """Run it on threads, one per rank, and record what leaves them."""
    nodes, root = settings["nodes"], settings.get("root", 0)
    family = getattr(collectives.get(settings["algorithm"]), operation)
    second = None
    if settings["algorithm"] == "hierarchical":
        second = "intra" if operation == "allgather" else "inter"
    heard = [Sent(mine, second) for mine in x]

    def body(comm: Communicator) -> Any:
        mine = x[comm.rank]
        more = (root,) if operation in ("broadcast", "reduce") else ()
        with comm.events.listen(heard[comm.rank]):
            got = family(comm, mine, *more)
        if operation == "alltoall":
            return got.reshape(-1).copy()  # from rank 0 on, end to end
        return got if operation == "reduce_scatter" else mine

    ends = spawn(nodes, body)
    sent = [one.messages for one in heard]
    between = [one.between for one in heard if one.between is not None]
    found = {"result": ends[root].copy() if operation == "reduce" else padded(ends)}
    if not any(sent) or x.shape[1] < len(nodes):
        return found
    found |= _messages(sent, x.dtype)
    if settings["algorithm"] == "ring":
        found["held"] = _held(operation, sent, ends)
    if len(between) == len(nodes) and operation in ("allgather", "reduce_scatter"):
        found |= _stage(operation, between, nodes)
    return found


def _messages(sent: list[list[tuple[int, np.ndarray]]], dtype: np.dtype) -> Arrays:
    """Return the messages of all ranks as arrays."""
    most = max(map(len, sent))
    longest = max(len(buf) for _, buf in chain(*sent))
    found = {
        "sent": np.zeros((len(sent), most, longest), dtype),
        "sent_to": np.full((len(sent), most), -1),
        "sent_size": np.zeros((len(sent), most), np.int64),
    }
    for rank, messages in enumerate(sent):
        for number, (dest, buf) in enumerate(messages):
            found["sent"][rank, number, : len(buf)] = buf
            found["sent_to"][rank, number], found["sent_size"][rank, number] = dest, len(buf)
    return found


def _held(operation: str, sent: list[list[tuple[int, np.ndarray]]], ends: list) -> np.ndarray:
    """Return what each rank holds after each step of a ring of the block that came.

    What has come and is added to is sent in the next step; the last is what stays.  In an
    all-gather it is what the left neighbour sent.
    """
    p = len(sent)
    rows = []
    for rank in range(p):
        own = [buf for _, buf in sent[rank]]
        left = [buf for _, buf in sent[rank - 1]]
        if operation == "allgather":
            rows.append(left)
        elif operation == "reduce_scatter":
            rows.append([*own[1:], ends[rank]])
        else:  # p - 1 steps of the one, then of the other, which first sends the own block
            rows.append([*own[1:p], *left[p - 1 :]])
    longest = max(len(buf) for buf in chain(*rows))
    return np.stack([padded(row, longest) for row in rows])


def _stage(operation: str, between: list[np.ndarray], nodes: list[int]) -> Arrays:
    """Return the state before the last stage of a hierarchical collective."""
    place = hierarchical.grid(tuple(nodes))
    state, runs = [], []
    for rank in range(len(nodes)):
        x = between[rank]
        block = chunks.slices(x, len(nodes))
        theirs = hierarchical.column(place, next(m.index(rank) for m in place if rank in m))
        there = np.zeros_like(x)
        for owner in theirs:
            there[block[owner]] = x[block[owner]]
        state.append(there)
        runs.append(np.concatenate([x[block[owner]] for owner in theirs]))
    name = "reordered" if operation == "allgather" else "node_sums"
    return {"gathered": padded(runs), name: np.stack(state)}


# --------------------------------------------------------------------------------------- cases


def bundles() -> Iterator[Bundle]:
    """Yield a bundle for each family."""
    for family, operations in FAMILIES.items():
        cases: list[Case] = []
        for operation in operations:
            worlds = NODES if family == "hierarchical" else {f"n{n}": (0,) * n for n in WORLDS}
            for label, nodes in worlds.items():
                if label == "2x3" and operation not in FAMILIES["ring"]:
                    continue  # the trees of 3x2-mixed have both lengths
                cases += _cases(family, operation, label, list(nodes))
        for operation in operations:
            for kind, (p, n) in SMALL.items():
                x = draw.dyadic(f"{family} {operation} {kind}", (p, n), 100, 0.25)
                cases.append(_case(family, operation, f"n{p}", list(SMALL_NODES[p]), kind, x))
        yield Bundle(
            f"collectives.{family}",
            "collectives",
            f"Collectives of the family {family}: inputs, results, and every message.",
            tuple(cases),
        )


def _cases(family: str, operation: str, label: str, nodes: list[int]) -> Iterator[Case]:
    p = len(nodes)
    made = {
        "tiny": np.outer(10.0 ** np.arange(p), np.arange(p) + 1).astype(np.float32),
        "uneven": draw.dyadic(f"{family} {operation} {label}", (p, 2 * p + 1), 100, 0.25),
    }
    if p > 4:
        del made["tiny"]
    if operation in SUMS and p > 2 and label not in ONLY_UNEVEN:
        made["order"] = draw.rough(f"{family} {operation} {label} order", (p, 2 * p + 1))
    for kind, x in made.items():
        yield _case(family, operation, label, nodes, kind, x)


TEXTS = {
    "tiny": "digits that a person can follow",
    "uneven": "blocks of unequal length",
    "order": "the order of summation",
    "few": "fewer values than ranks",
    "none": "no values",
}


def _case(
    family: str, operation: str, label: str, nodes: list[int], kind: str, x: np.ndarray
) -> Case:
    p = len(nodes)
    if operation == "allgather":
        for rank, block in enumerate(chunks.slices(x[0], p)):
            own = x[rank, block].copy()
            x[rank], x[rank, block] = 0, own
    settings: Settings = {"algorithm": family, "ranks": p, "nodes": nodes}
    if operation in ("broadcast", "reduce"):
        settings["root"] = p // 2
    return case(
        f"{operation}.{label}.{kind}".replace("_", "-"),
        globals()[operation],
        f"{operation} by {family} on {p} ranks: {TEXTS[kind]}",
        settings,
        {"x": (x, "rank element")},
        _answers(operation, COPIES if operation not in SUMS else _sum_rule(kind)),
    )


def _sum_rule(kind: str) -> Rule:
    return ORDER if kind == "order" else EXACT


def _answers(operation: str, rule: Rule) -> dict[str, Answer]:
    return {
        "sent_to": Answer("rank message", INTEGERS, "detail"),
        "sent_size": Answer("rank message", INTEGERS, "detail"),
        "sent": Answer("rank message element", rule, "detail"),
        "held": Answer("rank step element", rule, "detail"),
        "gathered": Answer("rank element", rule, "detail"),
        "reordered": Answer("rank element", rule, "detail"),
        "node_sums": Answer("rank element", rule, "detail"),
        "result": Answer("element" if operation == "reduce" else "rank element", rule),
    }
