"""Every row of the table of strategies, with options to try: what tests of rows are driven by.

Nothing here knows a row, a method or an option by its name: a new one is tried like the others.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import tiny
from loopback import spawn

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.options import Option
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import STRATEGIES, Lengths, Methods, Strategy, simplest
from refimpl.support.errors import UserError
from refimpl.world.events import Listener
from refimpl.world.ledger import Count
from refimpl.world.topology import Grid, Nodes, divisors

SERIAL = STRATEGIES[simplest(1)]  # the meaning of all others
STEPS = 5  # of which `Method.example` makes a block of 3 and a partial one
VALUES = {int: (1, 2), float: (0.5, 0.05, 2.0)}


class Case(NamedTuple):
    """A row on so many ranks, with options as a user gives them; `str` is a test's name."""

    name: str
    world: int
    given: tuple[tuple[str, Any], ...]

    def __str__(self):
        return " ".join([self.name, str(self.world), *(f"{k}={v}" for k, v in self.given)])

    @property
    def row(self) -> Strategy:
        return STRATEGIES[self.name]

    @property
    def grid(self) -> Grid:
        return self.row.grid(self.world, dict(self.given))

    @property
    def methods(self) -> Methods:
        """The methods: with what is given, else with what the method's example has."""
        given = dict(self.given)
        methods = self.row.choose(given)
        return Methods(*(method and self._shown(method, given) for method in methods))

    @property
    def shown(self) -> dict[str, Any]:
        """What is given, and what the examples have beside it, by key, as a user gives it."""
        found = dict(self.given)
        for method in self.methods.each():
            example = self.row.example(method, self.grid.blocks, STEPS)
            for key, one in method.options().items():
                if key in self.row.options() and one.field in example:
                    names = {value: name for name, value in one.choices.items()}
                    found.setdefault(key, names.get(example[one.field], example[one.field]))
        return found

    def _shown(self, method, given):
        told = {option.field for key, option in method.options().items() if key in given}
        example = self.row.example(method, self.grid.blocks, STEPS)
        return replace(method, **{key: v for key, v in example.items() if key not in told})

    @property
    def exact(self) -> bool:
        """Whether it takes serial's steps."""
        return self.row.gradient is SERIAL.gradient and self.grid.blocks == 1

    @property
    def twin(self) -> tuple[Grid, Methods] | None:
        """The same methods without shards, on fewer ranks; None if it has no shards."""
        grid, methods = self.grid, self.methods
        if grid.partition == 1:
            return None
        return Grid(grid.blocks, grid.gradient, 1), methods._replace(partition=SERIAL.partition())


def refused(case: Case, family: str = "ring", nodes: Nodes | None = None) -> bool:
    """Tell whether this cannot run: with these collectives, or on these nodes."""
    layout, found = tiny.network_layout(case.grid.partition), collectives.get(family)
    try:
        case.methods.refuse(found)
        if nodes is not None:
            traffic.check(case.methods, Setting(case.grid, nodes, layout, found))
    except UserError:
        return True
    return False


def cuts(world: int) -> list[Case]:
    """Return all rows on so many ranks, with all lengths that there are."""
    found = []
    for row in STRATEGIES.values():
        keys = [key for key in Lengths.options() if key in row.options()]
        for lengths in product(divisors(world), repeat=len(keys)):
            case = Case(row.name, world, tuple(zip(keys, lengths, strict=True)))
            try:
                assert case.grid.world == world
            except UserError:
                continue
            found.append(case)
    return found


def usual(row: Strategy, *given: tuple[str, Any]) -> Case:
    """Return a row with 2 ranks on every axis, or 4 where there is one axis only."""
    keys = [key for key in Lengths.options() if key in row.options()]
    axes = sum(length != "1" for length in row.lengths.split())
    world = max(4, 2**axes) if axes else 1
    return Case(row.name, world, (*((key, 2) for key in keys), *given))


def others(option: Option) -> list[Any]:
    """Return values of an option, as a user gives them, that are not its default."""
    if option.choices:
        return [name for name, value in option.choices.items() if value != option.default]
    if option.kind is bool:
        return [not option.default]
    fit = [v for v in VALUES[option.kind] if option.check is None or option.check.holds(v)]
    return [value for value in fit if value != option.default][: 1 if option.kind is float else 2]


def composed(row: Strategy) -> bool:
    """Tell whether a row is made of what rows before it have, and takes no steps of serial's."""
    before = list(STRATEGIES.values())[: list(STRATEGIES).index(row.name)]
    exact = row.gradient is SERIAL.gradient and row.block is None
    return not exact and set(row.methods()) <= {
        method for one in before for method in one.methods()
    }


def known(row: Strategy) -> set[str]:
    """Return the options that a row before this one takes, sharded as it is sharded or is not."""
    before = list(STRATEGIES.values())[: list(STRATEGIES).index(row.name)]
    whole = row.partition is SERIAL.partition
    alike = [one for one in before if (one.partition is SERIAL.partition) == whole]
    return {
        key
        for one in alike
        for key, option in one.options().items()
        if key not in Lengths.options()
        and any(not refused(usual(one, (key, value))) for value in others(option))
    }


def variants(row: Strategy, together: Collection[str] = ()) -> list[Case]:
    """Return a row as its examples are, with every option changed alone, and with all together.

    Those in ``together`` are not changed alone.
    """
    options = {k: v for k, v in row.options().items() if k not in Lengths.options()}
    alone = {k: one for k, one in options.items() if k not in together}
    cases = [usual(row), *(usual(row, (k, v)) for k, o in alone.items() for v in others(o))]
    every: tuple[tuple[str, Any], ...] = ()
    for key, option in options.items():
        more = (*every, (key, others(option)[-1]))
        every = every if refused(usual(row, *more)) else more
    cases.append(usual(row, *every))
    return [case for case in dict.fromkeys(cases) if not refused(case)]


ALL = [case for row in STRATEGIES.values() for case in variants(row, together=known(row))]
EVERY = [usual(row) for row in STRATEGIES.values()]
FEW = list(dict.fromkeys([*EVERY, *(variants(row)[-1] for row in STRATEGIES.values())]))


# ------------------------------------------------------------------------------ running a case


class Phase(NamedTuple):
    """A step, or the end of a block: what a rank sent, and what its axis for that then said.

    ``updated``: whether the optimizer took a step in it.
    """

    name: str
    updated: bool
    sent: dict[str, dict[str, Count]]
    statistics: dict[str, Any]


class Watch(Listener):
    """Keeps the phases of a rank: what was sent in each, and nothing between them."""

    kinds = frozenset({"phase"})
    NAMES = ("step", "end of block")

    def __init__(self, replica):
        self.replica, self.phases = replica, []
        self.ledger = replica.groups.world.ledger
        self.ledger.clear()

    def begin(self, event):
        if event.name in self.NAMES:
            assert not self.ledger.counts, f"sent before {event.name}"
            self.updated = False
        self.updated |= event.name == "update"

    def end(self, event):
        if event.name in self.NAMES:
            step, block = event.name == self.NAMES[0], self.replica.block
            said = self.replica.gradient.statistics() if step else block.said()
            sent = self.ledger.by_purpose()
            self.phases.append(Phase(event.name, self.updated, sent, said))
            self.ledger.clear()


class Ran(NamedTuple):
    """What a rank has: its pieces after every step, its phases, the digest of the model."""

    pieces: list[bytes]
    phases: list[Phase]
    trained: tiny.Trained


def pieces(replica) -> bytes:
    """Return this rank's shard as bytes."""
    return b"".join(piece.tobytes() for piece in replica.partition.pieces)


def watched(comm, grid: Grid, methods: Methods, **options) -> Ran:
    """Return what this rank has after some steps; options as `tiny.trained`.  Collective."""
    seen, held = [], []

    def watch(replica):
        seen.append(Watch(replica))
        comm.events.add(seen[0])

    given = {"steps": STEPS, "before": watch, "after": lambda r: held.append(pieces(r))}
    trained = tiny.trained(comm, grid=grid, methods=methods, **given | options)
    comm.events.remove(seen[0])
    return Ran(held, seen[0].phases, trained)


@cache
def ran(grid: Grid, methods: Methods, per_node: int | None = None, **options) -> list[Ran]:
    """Return what each rank has, ranks being threads."""
    nodes = Nodes.of(grid.world, per_node).node
    return spawn(nodes, lambda comm: watched(comm, grid, methods, **options))


def run(case: Case, per_node: int | None = None, **options) -> list[Ran]:
    """Return what each rank of a case has, by default after steps of two micro-steps."""
    given = {"micro_batches": 2 * case.world} | options
    return ran(case.grid, case.methods, per_node, **given)


def summed(phases: list[Phase]) -> dict[str, dict[str, Count]]:
    """Return what all ranks sent in one phase, by purpose and link; without what is nothing."""
    total: dict[str, dict[str, Count]] = {}
    for phase in phases:
        for purpose, links in phase.sent.items():
            for link, count in links.items():
                book = total.setdefault(purpose, {})
                book[link] = book.get(link, Count()) + count
    return nonzero(total)


def nonzero(sent):
    """Return the counts without those of no messages."""
    kept = {why: {ln: c for ln, c in links.items() if c.messages} for why, links in sent.items()}
    return {purpose: links for purpose, links in kept.items() if links}
