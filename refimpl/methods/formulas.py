"""The closed formulas of a step with their numbers filled in, as text for a person.

`refimpl topology --parameters N` prints it.  All parameters are taken as one unit, so V counts
the bytes of one gathered (or reduced) vector, padding included; every number is that of
`refimpl.methods.traffic` and of the collectives' cost functions, which equal the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from refimpl import collectives
from refimpl.collectives.families import HIERARCHICAL, RING
from refimpl.methods import traffic
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.partition import memory
from refimpl.methods.strategies import Methods
from refimpl.support.errors import require
from refimpl.world.ledger import Count
from refimpl.world.topology import Nodes

WHERE = {"intra": "inside nodes", "inter": "between nodes"}


def table(methods: Methods, setting: Setting, states: int, density: float = 0.005) -> str:
    """Return the volumes of a gather, of a step, and the memory of each stage, as text.

    ``states`` counts the optimizer's arrays (momentum 1, Adam 2).  Where a method's messages
    depend on the data, ``density`` is the share of values that it sends.

    Raises
    ------
    UserError
        If the collectives do not run on a group of this grid, or state no cost; if a sync is about
        some units.
    """
    traffic.check(methods, setting)
    fragments = 1 if methods.block is None else methods.block.fragments
    require(
        fragments == 1,
        f"--fragments {fragments}: --parameters takes all as one unit, and a fragment has one at "
        "least: leave it out",
    )
    typical = methods.gradient.typical(setting, density)
    parts = [
        _symbols(methods, setting),
        _gather(setting),
        _step(methods, setting, typical, density),
        _counted(methods, setting, typical),
        _memory(methods, setting, states),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _symbols(methods: Methods, setting: Setting) -> Iterator[str]:
    layout, grid = setting.layout, setting.grid
    padding = layout.padded - layout.size
    padded = f" and {padding} of padding" if padding else ""
    yield (
        f"P = {layout.size:,} parameters{padded} of {setting.itemsize} bytes: "
        f"V = {layout.padded * setting.itemsize:,} bytes"
    )
    steps = f"{setting.microsteps} micro-step{'s' * (setting.microsteps > 1)}"
    yield (
        f"p = {grid.partition} ranks of a partition group, g = {grid.gradient} of a gradient "
        f"group, s = {steps}, stage {methods.partition.stage}"
    )


def _row(label: str, formula: str, number: int, note: str = "") -> str:
    return f"  {label:<26}{formula:<28}{number:>16,} bytes{note}"


def _gather(setting: Setting) -> Iterator[str]:
    """What enters a node, of the group that lies worst."""
    p, nodes, n = setting.grid.partition, setting.nodes, setting.layout.padded
    yield "one gather of all parameters: what enters a node"
    spanning = [g for g in setting.talking("partition") if nodes.spanned(g) > 1]
    if not spanning:
        yield "  nothing: every partition group is inside one node"
        return
    k = min(held for g in spanning for held in Counter(nodes.nodes_of(g)).values())
    for name, family, part, own in (
        ("flat ring", RING, "V (p-1)/p", 1),
        ("hierarchical", HIERARCHICAL, "V (p-k)/p", k),
    ):
        if any(family.refuses("allgather", nodes.nodes_of(group)) for group in spanning):
            yield f"  {name:<26}refused: the nodes hold unequal parts of a group"
            continue
        enters = max(entering(g, nodes, family, n, setting.itemsize) for g in spanning)
        share = Fraction(enters, n * setting.itemsize)
        if share != Fraction(p - own, p):  # a ring that enters a node more than once
            part = "counted"
        yield _row(name, part, enters, f" = {share} V" + (f", k = {k}" if "k" in part else ""))


def entering(
    group: list[int], nodes: Nodes, family: collectives.Collectives, n: int, itemsize: int
) -> int:
    """Return the most bytes that an all-gather of n values in a group brings into one node."""
    where = nodes.nodes_of(group)
    cost = family.cost("allgather", n, where, itemsize)
    return max(cost.entering(node).bytes for node in set(where))


def _step(
    methods: Methods, setting: Setting, typical: Sequence[Statistics], density: float
) -> Iterator[str]:
    """What each rank sends in a step, by an algorithm that sends no more than it must.

    The mean over ranks: parts of a vector differ by one value where p does not divide it, and a
    method's own messages differ as it says.
    """
    hop1 = "hop 1, reduce-scatters"
    words = {
        "allgather": ("all-gathers", "V (p-1)/p"),
        "reduce_scatter": (hop1, "V (p-1)/p"),
        "allreduce": (
            "hop 2, all-reduces" if setting.grid.partition > 1 else "all-reduces",
            "2 (g-1)/g V/p",
        ),
    }
    yield "one step: what each rank sends"
    rows: dict[tuple[str, str], tuple[int, Fraction]] = {}
    for call in traffic.step_calls(methods, setting, typical):
        if call.axis == "partition" and len(call.group) < setting.grid.partition:
            what = "all-gathers inside nodes", "V (k-1)/k"
        elif call.own is None and call.purpose in ("parameters", "gradients"):
            what = words[call.operation]
        else:
            what = f"{methods.gradient.name} {call.purpose}", "its own exchange"
        times, before = rows.get(what, (call.times, Fraction()))
        rows[what] = times, before + call.times * _least(call)
    for (label, formula), (times, nbytes) in rows.items():
        own = formula == "its own exchange"
        dense = f" at a density of {density:g}" if own and typical else ""
        yield _row(
            label,
            formula if own else f"{times} x {formula}",
            round(nbytes / setting.grid.world),
            dense,
        )
    if not rows:
        yield "  nothing"
    if setting.exact:
        yield "  (--reduction exact sends gradients as 8-byte integers)"


def _least(call: Call) -> Fraction:
    """Return the bytes that a group must send for a call at least; its own exchange: does send."""
    if call.own is not None:
        return Fraction(sum(count.bytes for count in call.own.total().values()))
    once = (len(call.group) - 1) * call.n * call.itemsize
    return Fraction(2 * once if call.operation == "allreduce" else once)


def _counted(methods: Methods, setting: Setting, typical: Sequence[Statistics]) -> Iterator[str]:
    """What the ledgers of all ranks add up to."""
    yield f"one step: what all ranks send, {setting.collectives.name} collectives, to the byte"
    yield from _by_link(traffic.step_calls(methods, setting, typical))
    if methods.warm_steps:
        yield f"and one of the first {methods.warm_steps}, of the warm start:"
        yield from _by_link(traffic.warm_calls(methods, setting))
    if setting.grid.blocks > 1:
        yield "and at the end of a block of steps, models:"
        yield from _by_link(traffic.sync_calls(methods, setting))


def _by_link(calls: Iterable[Call]) -> Iterator[str]:
    sent = traffic.sent(calls)
    for link, where in WHERE.items():
        count = sum((links[link] for links in sent.values()), Count())
        yield _row(where, f"{count.messages:,} messages", count.bytes)


def _memory(methods: Methods, setting: Setting, states: int) -> Iterator[str]:
    """Memory of each stage; the gradients are always whole or a shard, as the stage says."""
    yield f"kept by each rank, m = {states} arrays of optimizer state"
    formulas = {
        0: "V (1 + 1 + m)",
        1: "V (1 + 1 + m/p)",
        2: "V (1 + 1/p + m/p)",
        3: "V (1 + 1 + m)/p",
    }
    if setting.exact:
        formulas = {stage: f.replace("1 + 1", "1 + 2", 1) for stage, f in formulas.items()}
        formulas[2] = "V (1 + 2/p + m/p)"
    p, size = setting.grid.partition, setting.itemsize
    units = [unit.size for unit in setting.layout.units]
    for stage in (0,) if p == 1 else (1, 2, 3):
        each = memory.Bytes(size, size, states * size)
        kept = memory.per_rank(units, p, stage, each, exact=setting.exact).states
        this = "   <- this one" if stage == methods.partition.stage else ""
        yield _row(f"stage {stage}", formulas[stage], round(kept), this)
    for what, formula, nbytes in methods.partition.beside(setting):
        yield _row(f"and {what}", formula, nbytes)
    if methods.partition.stage == 3:
        yield "  (and one unit at a time: its parameters, its gradient)"
