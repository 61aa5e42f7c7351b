"""One step of a strategy as text: what its ranks compute and send, in order.

Nothing here says what a method does: ranks as threads take the step, and the events of rank 0 are
written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np

from refimpl import collectives, nn, optim
from refimpl.collectives.interface import WORDS
from refimpl.methods.partition.memory import per_rank
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import STRATEGIES, strategy
from refimpl.support.errors import require
from refimpl.support.text import table
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid

MOST, WIDTH = 16, 100  # ranks; columns of a line
MICROSTEPS, ROWS = 2, 4
UNITS = {"a": 64, "b": 36}  # values: what is sent is known by its length
TITLES = {"combine": "combine: hop 2", "update": "update: the optimizer, on what the rank keeps"}
AXES = ("partition", "gradient", "block")
NAMES = tuple(name for name, row in STRATEGIES.items() if not row.serial)


def network() -> nn.Sequential:
    """Return the network of these units."""
    return nn.Sequential(nn.Affine("a", 7, 8, 1), nn.Tanh(), nn.Affine("b", 8, 4, 1, gain=1))


@dataclass
class Line:
    """Something that a rank does, and the bytes that it sends meanwhile."""

    does: str
    of: str = ""
    group: str = ""
    nbytes: int = 0


@dataclass
class Recorder(Listener):
    """Writes down what a rank does: ``parts`` of a step, titles and lines."""

    grid: Grid
    rank: int
    units: dict[int, str]  # by their bytes
    parts: list[tuple[str, list[Line]]] = field(default_factory=list)

    kinds = frozenset({"send", "collective", "compute", "phase"})

    def part(self, title: str) -> None:
        """Begin another part."""
        self.parts.append((title, []))

    def begin(self, event: Event) -> None:
        """Write a line, or add a message to the last one."""
        kind, name = event.kind, event.name
        lines = self.parts[-1][1] if self.parts else []
        if kind == "send":
            if not lines:  # of a method that has messages of its own
                lines.append(Line("messages", event.purpose))
            lines[-1].nbytes += event.nbytes
            lines[-1].group = f"{self._axis(event.peer)} group"
        elif kind == "collective":
            what = self.units.get(event.nbytes, f"{event.nbytes // 4} values")
            operation = WORDS[name.partition(".")[2]]
            lines.append(Line(operation, f"{event.purpose}, {what}"))
        elif kind == "compute" and name.partition(" ")[2] in UNITS:
            lines.append(Line(name.replace(" ", " of unit ")))
        elif kind == "phase" and name != "step":
            self.part(name)

    def _axis(self, peer: int) -> str:
        """Return the axis along which this rank and a peer lie."""
        return next(
            axis
            for axis in AXES
            if any({self.rank, peer} <= set(group) for group in self.grid.groups(axis))
        )


def step(name: str, p: int, k: int | None = None) -> str:
    """Return what the ranks of a strategy do in a step of two micro-steps, the last of a block.

    ``k``: ranks of a partition group, for strategies that let one choose (default: 2); where GTC
    groups are chosen they have two workers.

    Raises `UserError` if there is no such strategy, or p or k do not fit.

    >>> print(step("ddp", 2).partition("combine")[2])
    : hop 2
      all-reduce  gradients, 100 values  gradient group  400
    <BLANKLINE>
    update: the optimizer, on what the rank keeps
      nothing is sent
    """
    row = strategy(name)
    require(1 <= p <= MOST, f"cannot draw {p} ranks: give -p from 1 to {MOST}")
    require(k is None or "P" in row.given, f"{name} has no -p and -k, just -p: leave -k {k} out")
    chosen = {"P": {"partition": k or 2}, "G": {"gtc_group": 2}, "": {"block_steps": 1}}
    given = {key: value for letter in ("", *row.given) for key, value in chosen[letter].items()}
    given = {key: value for key, value in given.items() if key in row.options()}
    grid = row.grid(p, given)
    methods = row.choose(given)

    def body(comm: Communicator) -> Recorder:
        net, groups = network(), Groups.split(comm, grid)
        net.plan(ROWS, np.float32)
        options = StepOptions(batch=ROWS, microsteps=MICROSTEPS)
        family, optimizer = collectives.get("ring"), optim.make("momentum")
        replica = Replica(net, groups, family, optimizer, methods, options)
        units = replica.context.layout.units
        recorder = Recorder(
            grid, comm.rank, {4 * unit.padded: f"unit {unit.name}" for unit in units}
        )
        x, labels = np.ones((ROWS, net.inputs), np.float32), np.zeros(ROWS, np.int64)

        def batches(microstep: int) -> tuple[np.ndarray, np.ndarray]:
            recorder.part(f"micro-step {microstep + 1}")
            return x, labels

        with comm.events.listen(recorder):
            replica.step(batches, lr=0.1)
        return recorder

    stage = getattr(methods.partition, "stage", 0)
    kept = per_rank(UNITS.values(), grid.partition, stage, microsteps=MICROSTEPS)
    title = f"one step of {name}: {grid.sentence()}"
    found = [
        title + "\n" + "=" * len(title),
        f"units a and b of {UNITS['a']} and {UNITS['b']} values; of these a rank keeps "
        f"{kept.parameters / 4:g} parameters,\n{kept.gradients / 4:g} values of the gradient and "
        f"{kept.optimizer / 4:g} of the optimizer's state",
        "what rank 0 does, and every other in its groups; last, the bytes that it sends",
        "\n".join(_groups(grid)),
    ]
    return "\n\n".join([*found, *_parts(spawn((0,) * p, body)[0])])


def _groups(grid: Grid) -> Iterator[str]:
    """Yield the groups of every axis that is longer than 1."""
    for axis in AXES:
        groups = grid.groups(axis)
        if len(groups[0]) > 1:
            told = " ".join("{" + ", ".join(map(str, group)) + "}" for group in groups)
            yield fill(f"{axis} groups: {told}", WIDTH, subsequent_indent="  ")


def _parts(recorder: Recorder) -> Iterator[str]:
    """Yield every part of the step, one like the last in a word."""
    before = None
    for title, lines in recorder.parts:
        rows = [[line.does, line.of, line.group, f"{line.nbytes or ''}"] for line in lines]
        if rows and rows == before:
            yield f"{title}: the same"
        else:
            told = table([], rows, 3, indent=2) if rows else "  nothing is sent"
            yield f"{TITLES.get(title, title)}\n{told}"
        before = rows
