"""What a step sends, on paper: the methods' closed formulas added up, equal to the ledger.

Every method states its own (`Method.traffic`), as calls of collectives or exchanges with a cost;
what a collective sends is `refimpl.collectives`' to say.  Here the calls of all axes are added up
by purpose and class of link, and looked through for those that cannot run.

The volumes by which MiCS is explained, for V bytes of parameters (or gradients), a partition group
of p ranks, neighbours on nodes of k, and a gradient group of g:

    enters a node per gather       flat ring  V (p - 1) / p        hierarchical  V (p - k) / p
    sent by a rank per gather      V (p - 1) / p
    sent by a rank along the gradient axis, once per step     2 (g - 1) / g * V / p
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from refimpl.collectives import Auto, norm
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.gradient.compressed import dense_calls
from refimpl.methods.strategies import Methods
from refimpl.support.errors import UserError
from refimpl.world.ledger import LINKS, Count

Sent = dict[str, dict[str, Count]]


def step_calls(
    methods: Methods, setting: Setting, statistics: Sequence[Statistics] = ()
) -> Iterator[Call]:
    """Yield what all ranks send in one step, axis by axis, and for the norm if it is clipped."""
    yield from methods.partition.traffic(setting)
    yield from methods.gradient.traffic(setting, statistics)
    yield from _norm_calls(setting)


def sync_calls(
    methods: Methods, setting: Setting, owed: bool = True, said: Sequence[Statistics] = ()
) -> Iterator[Call]:
    """Yield what all ranks send when a block ends: for a step that is owed, and for models.

    ``owed``: whether the step that settling could make is made; else its norm and its parameters
    are not sent.  ``said``: what the block axis `BlockAxis.said`, by rank.
    """
    if methods.block is None or setting.grid.blocks == 1:
        return
    settling = methods.gradient.settling(setting)
    if settling is not None:
        yield from settling
        if owed:
            yield from _norm_calls(setting)
            yield from methods.partition.publishing(setting)
    yield from methods.block.traffic(setting, said)
    yield from methods.partition.publishing(setting)


def warm_calls(methods: Methods, setting: Setting) -> Iterator[Call]:
    """Yield what all ranks send in one step of the warm start, if there is one."""
    if methods.warm_steps:
        yield from step_calls(methods.warm(), replace(setting, grid=setting.grid.joined()))


def every_call(methods: Methods, setting: Setting) -> Iterator[Call]:
    """Yield what all ranks send in a step of each kind, and when a block ends."""
    yield from warm_calls(methods, setting)
    if methods.gradient.sometimes_dense:
        yield from dense_calls(setting)
    yield from step_calls(methods, setting, methods.gradient.typical(setting, density=0.01))
    yield from sync_calls(methods, setting)


def _norm_calls(setting: Setting) -> Iterator[Call]:
    for group in setting.talking("partition") if setting.clip else ():
        one = norm.cost(setting.nodes.nodes_of(group), setting.exact)
        yield Call(setting, "partition", group, "norm", own=one)


def families(methods: Methods, setting: Setting) -> dict[str, set[bool]]:
    """Return, by axis, whether what it sends goes by the run's collectives (True) or its own.

    Axes that send nothing are left out; numbers that ranks agree on always go their own way.
    """
    gradient, block = methods.gradient, methods.block
    steps = gradient.traffic(setting, gradient.typical(setting, density=0.01))
    calls = {
        "partition": methods.partition.traffic(setting),
        "gradient": chain(steps, gradient.settling(setting) or ()),
        "block": () if block is None else block.traffic(setting),
    }
    found = {
        axis: {call.own is None for call in made if call.purpose != "control"}
        for axis, made in calls.items()
    }
    if (gradient.sometimes_dense or methods.warm_steps) and found["gradient"]:
        found["gradient"].add(True)
    return {axis: ways for axis, ways in found.items() if ways}


def unused(methods: Methods, setting: Setting) -> str | None:
    """Return why nothing goes by the collectives, if all messages are methods' own; else None."""
    ways = families(methods, setting)
    if not ways or any(True in found for found in ways.values()):
        return None
    own = " and ".join(getattr(methods, axis).name for axis in ways)
    return (
        f"--collectives {setting.collectives.name}: nothing would go by them, since all messages "
        f"are those of {own}: leave it out"
    )


def sent(calls: Iterable[Call]) -> Sent:
    """Return what is sent, all ranks together, by purpose and class of link.

    Raises
    ------
    UserError
        If the collectives state no cost (``native``) or cannot run on these nodes.
    """
    found: Sent = {}
    for call in calls:
        links = found.setdefault(call.purpose, dict.fromkeys(LINKS, Count()))
        for link, count in call.cost().total().items():
            links[link] += (call.times * count.messages, call.times * count.bytes)
    return found


def check(methods: Methods, setting: Setting) -> None:
    """Refuse collectives that cannot run on some group of this grid.

    A group that lies unevenly on nodes is known to its members only, so it is looked for here,
    on the whole grid, where all ranks find the same one before any message is sent.

    Raises
    ------
    UserError
        Naming the first such group; the same on every rank.
    """
    family, seen = setting.collectives, set()
    for call in every_call(methods, setting):
        case = call.axis, call.operation, tuple(call.group)
        if call.own is not None or case in seen:
            continue
        seen.add(case)
        if not family.has(call.operation):
            raise UserError(
                f"collectives {family.name} have no {call.operation}, which the {call.axis} axis "
                "needs: use ring, halving-doubling, hierarchical or auto"
            )
        refusal = family.refuses(call.operation, call.where)
        if refusal is not None:
            members = ", ".join(map(str, call.group))
            raise UserError(f"{call.axis} group {{{members}}}: {refusal}")


def choices(methods: Methods, setting: Setting) -> list[str]:
    """Return what ``auto`` chooses in a step, a line for each axis and operation.

    A line says how many kinds of calls go to which algorithm (calls differ in their length, and
    groups in how they lie on nodes), and the reason for the longest one.
    """
    auto = setting.collectives
    assert isinstance(auto, Auto)
    kinds: dict[tuple[str, str], set[tuple[int, tuple[int, ...], int]]] = {}
    for call in every_call(methods, setting):
        if call.own is None:
            one = kinds.setdefault((call.axis, call.operation), set())
            one.add((call.n, call.where, call.itemsize))
    lines = []
    for (axis, operation), calls in kinds.items():
        ordered = sorted(calls, reverse=True)
        made = [auto.choose(operation, n, on, size) for n, on, size in ordered]
        times = Counter(choice.name for choice in made)
        names = ", ".join(f"{name} ({number})" for name, number in times.items())
        longest = f"{ordered[0][0]:,} values: {made[0].name}, {made[0].why}"
        lines.append(f"auto, {axis} {operation}: {names}; {longest}")
    return lines
