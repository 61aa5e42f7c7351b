"""What one training step sends: closed formulas per class of link, equal to the ledger.

For every unit u of padded length P_u, in every partition group, with s micro-steps:

    stage   all-gathers of P_u     reduce-scatters of P_u
      0     none                   none
      1     1                      1
      2     1                      s
      3     2 s                    s

and along every gradient group one all-reduce of the shard, however many micro-steps there are
(``--sync every-microstep``: s of them).  What a collective sends is `refimpl.collectives`' to say.

Beside these exact counts stand the volumes by which MiCS is explained, for V bytes of parameters
(or gradients), a partition group of p ranks on nodes of k, and R replicas:

    enters a node per gather       flat ring  V (p - 1) / p        hierarchical  V (p - k) / p
    sent by a rank per gather      V (p - 1) / p
    sent by a rank along the column, once per step     2 (R - 1) / R * V / p
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from refimpl.support.errors import UserError
from refimpl.world.ledger import LINKS, Count
from refimpl.world.topology import Grid, Nodes

if TYPE_CHECKING:
    from refimpl.collectives import Auto, Collectives
    from refimpl.nn.flat import Layout


class Calls(NamedTuple):
    """How often a step calls each collective in a partition group, per unit."""

    allgather: int
    reduce_scatter: int


def partition_calls(stage: int, microsteps: int, every_microstep: bool = False) -> Calls:
    """Return the calls of one step for each unit.

    >>> partition_calls(stage=3, microsteps=4)
    Calls(allgather=8, reduce_scatter=4)
    """
    return {
        0: Calls(0, 0),
        1: Calls(1, microsteps if every_microstep else 1),
        2: Calls(1, microsteps),
        3: Calls(2 * microsteps, microsteps),
    }[stage]


def step_traffic(
    grid: Grid,
    nodes: Nodes,
    layout: Layout,
    family: Collectives,
    *,
    stage: int,
    microsteps: int,
    itemsize: int = 4,
    gradient_itemsize: int | None = None,
    every_microstep: bool = False,
) -> dict[str, dict[str, Count]]:
    """Return what all ranks together send in one step, by purpose and class of link.

    ``gradient_itemsize`` is 8 with ``--reduction exact``; ``layout`` is cut for the grid's p.

    Raises
    ------
    UserError
        If the collectives state no cost (``native``) or cannot run on these nodes.
    """
    calls = partition_calls(stage, microsteps, every_microstep)
    gradient_itemsize = itemsize if gradient_itemsize is None else gradient_itemsize
    sent = {purpose: dict.fromkeys(LINKS, Count()) for purpose in ("parameters", "gradients")}

    def add(purpose: str, times: int, operation: str, n: int, group: list[int], size: int) -> None:
        if times and len(group) > 1:
            where = nodes.nodes_of(group)
            total = family.cost(operation, n, where, itemsize=size).total()
            for link in LINKS:
                count = Count(times * total[link].messages, times * total[link].bytes)
                sent[purpose][link] += count

    for group in groups(grid, "partition"):
        for unit in layout.units:
            add("parameters", calls.allgather, "allgather", unit.padded, group, itemsize)
            add(
                "gradients",
                calls.reduce_scatter,
                "reduce_scatter",
                unit.padded,
                group,
                gradient_itemsize,
            )
    hops = microsteps if every_microstep else 1
    for group in groups(grid, "gradient"):
        add("gradients", hops, "allreduce", layout.shard, group, gradient_itemsize)
    return sent


def sync_traffic(
    grid: Grid,
    nodes: Nodes,
    layout: Layout,
    family: Collectives,
    *,
    itemsize: int = 4,
    sum_itemsize: int | None = None,
) -> dict[str, Count]:
    """Return what all ranks together send when BMUF ends a block, by class of link.

    For each shard: one all-reduce of the shard among the b representatives (``sum_itemsize`` is
    8 with ``--reduction exact``), one broadcast inside every GTC group.
    """
    sent = dict.fromkeys(LINKS, Count())
    if grid.blocks == 1:
        return sent

    def add(operation: str, group: list[int], size: int) -> None:
        where = nodes.nodes_of(group)
        if len(group) > 1:
            total = family.cost(operation, layout.shard, where, itemsize=size).total()
            for link in LINKS:
                sent[link] += total[link]

    for shard in range(grid.partition):
        add("allreduce", grid.block_group(shard), sum_itemsize or itemsize)
    for group in groups(grid, "gradient"):
        add("broadcast", group, itemsize)
    return sent


def check(grid: Grid, nodes: Nodes, family: Collectives, stage: int) -> None:
    """Refuse collectives that cannot run on some group of this grid.

    A group that lies unevenly on nodes is known to its members only, so it is looked for here,
    on the whole grid, where all ranks find the same one before any message is sent.

    Raises
    ------
    UserError
        Naming the first such group; the same on every rank.
    """
    needed = {
        "partition": ("allgather", "reduce_scatter") if stage else (),
        "gradient": ("allreduce",),
        "block": ("allreduce",),
    }
    for axis, operations in needed.items():
        for operation in operations:
            if not family.has(operation):
                raise UserError(
                    f"collectives {family.name} have no {operation}, which the {axis} axis needs: "
                    "use ring, halving-doubling, hierarchical or auto"
                )
            for group in groups(grid, axis):
                refusal = family.refuses(operation, nodes.nodes_of(group))
                if refusal is not None:
                    members = ", ".join(map(str, group))
                    raise UserError(f"{axis} group {{{members}}}: {refusal}")


def choices(
    grid: Grid,
    nodes: Nodes,
    layout: Layout,
    auto: Auto,
    stage: int,
    *,
    itemsize: int = 4,
    gradient_itemsize: int | None = None,
) -> list[str]:
    """Return what ``auto`` chooses in a step, a line for each axis and operation.

    A line says how many kinds of calls go to which algorithm (calls differ in their length, and
    groups in how they lie on nodes), and the reason for the longest one.
    """
    summed = gradient_itemsize or itemsize
    units = [unit.padded for unit in layout.units] if stage else []
    lines = []
    for axis, operation, lengths, size in (
        ("partition", "allgather", units, itemsize),
        ("partition", "reduce_scatter", units, summed),
        ("gradient", "allreduce", [layout.shard], summed),
        ("block", "allreduce", [layout.shard], summed),
    ):
        where = {nodes.nodes_of(g) for g in groups(grid, axis) if len(g) > 1}
        calls = sorted({(n, on) for n in lengths for on in where}, reverse=True)
        if calls:
            made = [auto.choose(operation, n, on, size) for n, on in calls]
            times = Counter(choice.name for choice in made)
            names = ", ".join(f"{name} ({number})" for name, number in times.items())
            longest = f"{calls[0][0]:,} values: {made[0].name}, {made[0].why}"
            lines.append(f"auto, {axis} {operation}: {names}; {longest}")
    return lines


def groups(grid: Grid, axis: str) -> list[list[int]]:
    """Return the groups of an axis that talk, each as its ranks in order.

    On the block axis these are the representatives' groups.

    >>> groups(Grid(1, 2, 2), "gradient")
    [[0, 2], [1, 3]]
    """
    group_of = {
        "partition": grid.partition_group,
        "gradient": grid.gradient_group,
        "block": grid.block_group,
    }[axis]
    ranks = [r for r in range(grid.world) if axis != "block" or grid.place(r).member == 0]
    return [list(g) for g in sorted({tuple(group_of(rank)) for rank in ranks})]


def state_bytes(
    layout: Layout, *, stage: int, states: int, itemsize: int = 4, exact: bool = False
) -> int:
    """Return the bytes of model states that a rank keeps.

    Parameters and gradients (8 bytes each with ``exact``) whole or as a shard, the optimizer's
    ``states`` arrays as a shard: with P parameters, 4-byte floats and SGD momentum (states = 1),
    12 P whole and 12 P / p with everything sharded.
    """
    parameters = layout.shard if stage == 3 else layout.padded
    gradients = layout.shard if stage >= 2 else layout.padded
    summed = 8 if exact else itemsize
    return itemsize * (parameters + states * layout.shard) + summed * gradients


def work_bytes(
    layout: Layout,
    *,
    stage: int,
    microsteps: int,
    itemsize: int = 4,
    exact: bool = False,
    prefetch: bool = False,
) -> int:
    """Return the bytes of work space beside the model states, in units of the largest unit.

    One for the unit whose gradient is computed, unless it is computed where it is kept (stages
    0 and 1, one micro-step, float); stage 3: one for the unit whose parameters are whole, two
    with ``prefetch``; ``exact``: one of 8-byte integers.  Stage 1 collects a shard of gradients.
    """
    largest = max((unit.padded for unit in layout.units), default=0)
    direct = stage < 2 and microsteps == 1 and not exact
    units = (0 if direct else 1) + (1 + prefetch if stage == 3 else 0)
    shard = layout.shard if stage == 1 and layout.partition > 1 else 0
    summed = 8 if exact else itemsize
    return itemsize * units * largest + (8 * largest if exact else 0) + summed * shard


def entering_fraction(p: int, k: int, hierarchical: bool) -> float:
    """Return the share of a gathered vector that enters each node, p ranks on nodes of k.

    >>> entering_fraction(4, 2, hierarchical=False), entering_fraction(4, 2, hierarchical=True)
    (0.75, 0.5)
    """
    if p <= k:
        return 0.0
    return (p - k) / p if hierarchical else (p - 1) / p
