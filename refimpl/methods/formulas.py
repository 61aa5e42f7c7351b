"""The closed formulas of a step with their numbers filled in, as text for a person.

`refimpl topology --parameters N` prints it.  All parameters are taken as one unit, so V counts
the bytes of one gathered (or reduced) vector, padding included; every number is that of
`refimpl.methods.traffic` and of the collectives' cost functions, which equal the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from refimpl import collectives
from refimpl.collectives.families import HIERARCHICAL, RING
from refimpl.methods import traffic
from refimpl.nn.flat import Layout
from refimpl.support.errors import UserError
from refimpl.world.ledger import Count
from refimpl.world.topology import Grid, Nodes

WHERE = {"intra": "inside nodes", "inter": "between nodes"}


class Tensor(NamedTuple):
    """A parameter without values."""

    name: str
    shape: tuple[int, ...]


class Unit(NamedTuple):
    """All parameters, as `Layout` wants to see a layer."""

    name: str
    parameters: tuple[Tensor, ...]


class Given(NamedTuple):
    """What the formulas are filled in with.

    ``states`` counts the optimizer's arrays (momentum 1, Adam 2); ``itemsize`` is 4 for float32.
    """

    parameters: int
    stage: int
    microsteps: int = 1
    collectives: str = "ring"
    every_microstep: bool = False
    exact: bool = False
    states: int = 1
    itemsize: int = 4

    @property
    def summed(self) -> int:
        """Bytes of one value of a gradient on its way."""
        return 8 if self.exact else self.itemsize


def table(grid: Grid, nodes: Nodes, given: Given) -> str:
    """Return the volumes of a gather, of a step, and the memory of each stage, as text.

    Raises
    ------
    UserError
        If the collectives do not run on a group of this grid, or state no cost.
    """
    if given.stage == 0 and grid.partition > 1:
        raise UserError(
            f"--zero-stage 0 replicates but --partition {grid.partition} shards: use stage 1, 2 "
            "or 3, or --partition 1"
        )
    traffic.check(grid, nodes, collectives.get(given.collectives), given.stage)
    unit = Unit("all", (Tensor("parameters", (given.parameters,)),))
    layout = Layout([unit], grid.partition)
    parts = [_symbols(grid, given, layout), _gather(grid, nodes, given, layout)]
    parts += [_step(grid, given, layout), _counted(grid, nodes, given, layout)]
    parts += [_memory(grid, given, layout)]
    return "\n\n".join("\n".join(part) for part in parts)


def _symbols(grid: Grid, given: Given, layout: Layout) -> Iterator[str]:
    padding = layout.padded - layout.size
    padded = f" and {padding} of padding" if padding else ""
    yield (
        f"P = {given.parameters:,} parameters{padded} of {given.itemsize} bytes: "
        f"V = {layout.padded * given.itemsize:,} bytes"
    )
    steps = f"{given.microsteps} micro-step{'s' * (given.microsteps > 1)}"
    yield (
        f"p = {grid.partition} ranks of a partition group, R = {grid.gradient} of a gradient "
        f"group, s = {steps}, stage {given.stage}"
    )


def _row(label: str, formula: str, number: int, note: str = "") -> str:
    return f"  {label:<26}{formula:<28}{number:>16,} bytes{note}"


def _gather(grid: Grid, nodes: Nodes, given: Given, layout: Layout) -> Iterator[str]:
    """What enters a node, of the group that lies worst."""
    p = grid.partition
    yield "one gather of all parameters: what enters a node"
    spanning = [g for g in traffic.groups(grid, "partition") if nodes.spanned(g) > 1]
    if not spanning:
        yield "  nothing: every partition group is inside one node"
        return
    held = {
        nodes.nodes_of(group).count(node) for group in spanning for node in nodes.nodes_of(group)
    }
    k = held.pop() if len(held) == 1 else None
    for name, family, part, own in (
        ("flat ring", RING, "V (p-1)/p", 1),
        ("hierarchical", HIERARCHICAL, "V (p-k)/p", k),
    ):
        if any(family.refuses("allgather", nodes.nodes_of(group)) for group in spanning):
            yield f"  {name:<26}refused: the nodes hold unequal parts of a group"
            continue
        enters = max(
            entering(group, nodes, family, layout.padded, given.itemsize) for group in spanning
        )
        share = Fraction(enters, layout.padded * given.itemsize)
        note = f" = {share} V" + (f", k = {k}" if k and "k" in part else "")
        assert k is None or share == Fraction(p - own, p)
        yield _row(name, part, enters, note)


def entering(
    group: list[int], nodes: Nodes, family: collectives.Collectives, n: int, itemsize: int
) -> int:
    """Return the most bytes that an all-gather of n values in a group brings into one node."""
    where = nodes.nodes_of(group)
    cost = family.cost("allgather", n, where, itemsize)
    return max(cost.entering(node).bytes for node in set(where))


def _step(grid: Grid, given: Given, layout: Layout) -> Iterator[str]:
    """What each rank sends in a step, by an algorithm that sends no more than it must.

    Of hop 2 the mean over ranks: chunks differ by one value where R does not divide V/p.
    """
    calls = traffic.partition_calls(given.stage, given.microsteps, given.every_microstep)
    hops = given.microsteps if given.every_microstep else 1
    yield "one step: what each rank sends"
    if grid.partition > 1:
        foreign = layout.padded - layout.shard
        for label, formula, times, size in (
            ("all-gathers", "V (p-1)/p", calls.allgather, given.itemsize),
            ("hop 1, reduce-scatters", "V (p-1)/p", calls.reduce_scatter, given.summed),
        ):
            yield _row(label, f"{times} x {formula}", times * foreign * size)
    if grid.gradient > 1:
        sent = Fraction(2 * (grid.gradient - 1), grid.gradient) * layout.shard * given.summed
        name = "hop 2, all-reduces" if grid.partition > 1 else "all-reduces"
        yield _row(name, f"{hops} x 2 (R-1)/R V/p", round(hops * sent))
    if grid.partition == grid.gradient == 1:
        yield "  nothing"
    if given.exact:
        yield "  (--reduction exact sends gradients as 8-byte integers)"


def _counted(grid: Grid, nodes: Nodes, given: Given, layout: Layout) -> Iterator[str]:
    """What the ledgers of all ranks add up to."""
    sent = traffic.step_traffic(
        grid,
        nodes,
        layout,
        collectives.get(given.collectives),
        stage=given.stage,
        microsteps=given.microsteps,
        itemsize=given.itemsize,
        gradient_itemsize=given.summed,
        every_microstep=given.every_microstep,
    )
    yield f"one step: what all ranks send, {given.collectives} collectives, to the byte"
    for link, where in WHERE.items():
        count = sum((links[link] for links in sent.values()), Count())
        yield _row(where, f"{count.messages:,} messages", count.bytes)
    if grid.blocks > 1:
        yield "and at the end of a block of steps (BMUF), models:"
        models = traffic.sync_traffic(
            grid,
            nodes,
            layout,
            collectives.get(given.collectives),
            itemsize=given.itemsize,
            sum_itemsize=given.summed,
        )
        for link, where in WHERE.items():
            yield _row(where, f"{models[link].messages:,} messages", models[link].bytes)


def _memory(grid: Grid, given: Given, layout: Layout) -> Iterator[str]:
    """Memory of each stage; the gradients are always whole or a shard, as the stage says."""
    yield f"kept by each rank, m = {given.states} arrays of optimizer state"
    formulas = {
        0: "V (1 + 1 + m)",
        1: "V (1 + 1 + m/p)",
        2: "V (1 + 1/p + m/p)",
        3: "V (1 + 1 + m)/p",
    }
    if given.exact:
        formulas = {stage: f.replace("1 + 1", "1 + 2", 1) for stage, f in formulas.items()}
        formulas[2] = "V (1 + 2/p + m/p)"
    for stage in (0,) if grid.partition == 1 else (1, 2, 3):
        options = {"stage": stage, "itemsize": given.itemsize, "exact": given.exact}
        kept = traffic.state_bytes(layout, states=given.states, **options)
        this = "   <- this one" if stage == given.stage else ""
        yield _row(f"stage {stage}", formulas[stage], kept, this)
    if given.stage == 3:
        yield "  (and one unit at a time: its parameters, its gradient)"
