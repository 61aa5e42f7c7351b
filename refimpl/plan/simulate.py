"""One training step in virtual time: the real program on ranks that are threads.

Step, methods and collectives are those of a run, and the messages arrive; only the clocks are
worked out (`refimpl.world.virtual`).  Computing takes what `refimpl.plan.model` says of a unit u
of P_u parameters, for B rows at F operations a second::

    forward  2 P_u B / F       backward  4 P_u B / F

additions what the links state (gamma), and all else (optimizer, encoding) no time.  A parameter
may stand for many: with ``scale`` s each byte that is sent and each operation count s times, so
that a small network shows the times of one s times as large.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.collectives import Collectives
from refimpl.collectives.auto import ASSUMED
from refimpl.collectives.cost import Links
from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.methods.partition.memory import Bytes, per_rank
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.nn import Sequential
from refimpl.nn.flat import Layout
from refimpl.numerics.rng import stream
from refimpl.optim import Optimizer
from refimpl.plan.model import FORWARD_BACKWARD, Cluster, Method, Model, Split, predict
from refimpl.plan.rings import at_once
from refimpl.run.config import Run
from refimpl.run.modelfile import ModelFile, room
from refimpl.support.errors import UserError, require
from refimpl.support.text import size
from refimpl.world import trace
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.groups import Groups
from refimpl.world.ledger import Count, summed
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid, Nodes
from refimpl.world.virtual import Network, Spent

FORWARD = FORWARD_BACKWARD // 3  # operations per parameter and row; backward has the others
MOST = 1e15  # parameters that are meant: their bytes can be counted
TRACED = 2_000_000  # events of all ranks together that are drawn


@dataclass(frozen=True)
class Simulated:
    """What a simulation shows of one step, the mean over ``steps``; a byte counted ``scale``.

    ``seconds``: from the moment that all begin to when the last is done.  ``spent``: of each
    rank, to when it is done itself.  ``sent``: by all ranks together, in all steps.
    ``planned``: what `refimpl.plan.model.predict` says; None where it has no formula.
    """

    run: Run
    grid: Grid
    units: tuple[int, ...]
    scale: float
    steps: int
    seconds: float
    spent: list[Spent]
    sent: dict[str, Count]
    planned: Split | None
    slices: list[list[trace.Slice]] = field(repr=False, default_factory=list)

    @property
    def parameters(self) -> float:
        """Those of the network that is meant."""
        return sum(self.units) * self.scale


@dataclass(frozen=True)
class Program:
    """What every rank does: ``steps`` steps, each as in a run, on inputs that are drawn."""

    build: Callable[[], Sequential]
    grid: Grid
    methods: Methods
    collectives: Collectives
    optimizer: Callable[[], Optimizer]
    options: StepOptions
    rate: float = 0.1
    steps: int = 1
    seed: int = 0


class Taken(NamedTuple):
    """What one rank's steps took in virtual time, and what they sent."""

    seconds: float
    spent: Spent
    sent: dict[str, Count]
    slices: list[trace.Slice]


class Speed(Listener):
    """Moves the clock of a rank when it has computed: ``seconds`` by the name of the work."""

    kinds = frozenset({"compute"})

    def __init__(self, network: Network, rank: int, seconds: dict[str, float]) -> None:
        self.network, self.rank, self.seconds = network, rank, seconds

    def end(self, event: Event) -> None:
        """Let what was computed have taken its time."""
        self.network.compute(self.rank, self.seconds.get(event.name, 0.0))


def seconds_of(network: Sequential, rows: int, scale: float, flops: float) -> dict[str, float]:
    """Return what a rank takes for each unit forward and backward, by the names of the events."""
    return {
        f"{way} {layer.name}": operations * layer.size * scale * rows / flops
        for layer in network.units
        for way, operations in (("forward", FORWARD), ("backward", FORWARD_BACKWARD - FORWARD))
    }


def network_of(run: Run, model: ModelFile) -> Sequential:
    """Return a rank's network, for as many inputs and classes as ``build`` has as its defaults."""
    told = inspect.signature(model.module.build).parameters
    inputs, classes = (getattr(told.get(name), "default", None) for name in ("inputs", "classes"))
    if not (isinstance(inputs, int) and isinstance(classes, int)):
        raise UserError(
            f"model {model.name}: no data say how many inputs and classes there are, and build() "
            "has no defaults: give it inputs=N and classes=N"
        )
    return model.build(run.seed, inputs, classes, run.options)


def simulate(
    run: Run,
    model: ModelFile,
    cluster: Cluster,
    scale: float = 1.0,
    drawn: bool = False,
) -> Simulated:
    """Take ``run.steps`` steps (default: 1) in virtual time, on inputs that are drawn.

    ``drawn``: keep the slices of a trace.  Raises `UserError` for what the run refuses, for
    collectives whose messages are not written out, and for ranks that have no room here.
    """
    n, steps = cluster.ranks, run.steps or 1
    run.check(n)
    grid, methods = run.grid(n), run.chosen()
    like = network_of(run, model)
    parameters = sum(unit.size for unit in like.units)
    require(
        parameters * scale <= MOST,
        f"--scale {scale:g}: {parameters:,} parameters would stand for more than {MOST:g}: give a "
        "smaller one",
    )
    nodes = Nodes.of(n, cluster.ranks_per_node)
    setting = run.setting(nodes, Layout(like.units, grid.partition))
    traffic.check(methods, setting)
    for call in traffic.step_calls(methods, setting, methods.gradient.typical(setting, 0.01)):
        call.cost()  # refuses those that state none
        break
    _require_room(run, setting, like)

    program = Program(
        lambda: network_of(run, model),
        grid,
        methods,
        run.family(),
        run.optimizer,
        run.step_options(),
        run.recipe.lr,
        steps,
        run.seed,
    )
    took, spent, sent, slices = zip(*taken(program, cluster, scale, drawn=drawn), strict=True)
    return Simulated(
        run,
        grid,
        tuple(unit.size for unit in like.units),
        scale,
        steps,
        max(took) / steps,
        [Spent(*(part / steps for part in one)) for one in spent],
        summed(sent),
        planned(run, cluster, setting, scale),
        list(slices),
    )


def taken(
    program: Program,
    cluster: Cluster,
    scale: float = 1.0,
    rows: int | None = None,
    drawn: bool = False,
) -> list[Taken]:
    """Return what the program takes on each rank; ``rows`` are counted, by default those it has.

    The steps begin on all ranks at once.
    """
    n, options = cluster.ranks, program.options
    node = Nodes.of(n, cluster.ranks_per_node).node
    links = cluster.links
    network = Network(node, links.intra, links.inter, scale, gamma=links.gamma)
    family, ahead = program.collectives, getattr(program.methods.partition, "prefetch", False)
    if not (drawn or ahead):
        family = at_once(family, network)

    def body(comm: Communicator) -> Taken:
        rank, dtype, net = comm.rank, np.dtype(options.dtype), program.build()
        groups = Groups.split(comm, program.grid)
        net.plan(options.batch, dtype)
        chosen = family, program.optimizer(), program.methods, options
        replica = Replica(net, groups, *chosen)
        rng = stream(program.seed, "simulate", rank)
        x = rng.normal(size=(options.batch, net.inputs)).astype(dtype)
        y = rng.integers(0, net.outputs, options.batch)
        seconds = seconds_of(net, rows or options.batch, scale, cluster.flops)
        recorder = trace.Recorder(clock=lambda: network.clock[rank], most=TRACED // n)
        comm.barrier()
        comm.events.add(Speed(network, rank, seconds))
        if drawn:
            comm.events.add(recorder)
        begun, before, sent = network.clock[rank], network.spent[rank], comm.ledger.totals()
        for _ in range(program.steps):
            replica.step(lambda microstep: (x, y), program.rate)
        after, now = network.spent[rank], comm.ledger.totals()
        return Taken(
            network.clock[rank] - begun,
            Spent(*(b - a for a, b in zip(before, after, strict=True))),
            {link: now[link] - sent[link] for link in now},
            recorder.slices,
        )

    return spawn(node, body, network)


def _require_room(run: Run, setting: Setting, network: Sequential) -> None:
    """Refuse ranks that this machine could not hold all at once."""
    n, each, partition = setting.grid.world, setting.itemsize, run.chosen().partition
    units, state = [unit.size for unit in network.units], each * len(run.optimizer().states)
    cut = units, setting.grid.partition, partition.stage, Bytes(each, each, state)
    ahead = getattr(partition, "prefetch", False)
    kept = per_rank(*cut, microsteps=setting.microsteps, exact=setting.exact, prefetch=ahead).total
    kept += sum(nbytes for *_, nbytes in partition.beside(setting))
    widths = sum(layer.inputs + layer.outputs for layer in network.units)
    needed = n * (kept + 3 * each * run.recipe.batch * widths)
    require(
        needed <= room(),
        f"{n} ranks of {network.size:,} parameters need {size(needed)} here, and there are "
        f"{size(room())}: give a smaller --batch, or network (--set hidden=...) with --scale",
    )


def planned(run: Run, cluster: Cluster, setting: Setting, scale: float) -> Split | None:
    """Return the step that is predicted on paper, for a network ``scale`` times as large.

    None where messages do not go by collectives, and with blocks.
    """
    methods, recipe = run.chosen(), run.recipe
    ways = traffic.families(methods, setting).values()
    if setting.grid.blocks > 1 or any(False in way for way in ways):
        return None
    ahead, near = (getattr(methods.partition, name, False) for name in ("prefetch", "secondary"))
    return predict(
        Model(
            tuple(round(unit.size * scale) for unit in setting.layout.units),
            recipe.batch,
            FORWARD_BACKWARD,
            Bytes(setting.itemsize, setting.summed),
        ),
        cluster,
        Method(
            partition=setting.grid.partition,
            microsteps=recipe.microsteps,
            stage=methods.partition.stage,
            family=run.collectives,
            overlap=float(ahead),
            every_microstep=setting.every_microstep,
            gathers_only=True,
            secondary=near,
            links=Links.of(run.links, "--links") if run.links else ASSUMED,
        ),
    )


def draw(found: Simulated, path: Path, nodes: Sequence[int]) -> None:
    """Write the trace of a simulation."""
    about = [
        f"rank {rank} (node {node}, virtual time"
        + (", not all events)" if len(slices) == TRACED // len(nodes) else ")")
        for rank, (node, slices) in enumerate(zip(nodes, found.slices, strict=True))
    ]
    trace.write(path, found.slices, about)
