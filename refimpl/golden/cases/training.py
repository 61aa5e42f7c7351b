"""The last rungs: one step and ten of every strategy, on 1, 2, 4 and 8 ranks.

The model is that of `refimpl.golden.cases.springs`.  A step has 8 micro-batches, whatever the
number of ranks, so that every strategy that is exact trains as serial does.

    one step     values of few digits: nothing is rounded, equal bits for any order of sums
    ten steps    values with all their digits, which every backend rounds in its own way; but no
                 decision (beyond tau or not, plus or minus) is so near that it could differ
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl import collectives, optim
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule, padded
from refimpl.golden.cases import springs
from refimpl.golden.cases.ask import BYTES, EXACT, INTEGERS, Answer, Arrays, Settings, case
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import STRATEGIES, Methods, Strategy, strategy
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid

UNITS = [9, 5, 2]  # 16 in all; no piece of the first two is a whole one on 2 or more ranks
MICRO_BATCHES = 8
WORLDS = (1, 2, 4, 8)
MARGIN = 2.0**-15
SALT = 0  # another number, another draw: where a decision would be too near

# ---------------------------------------------------------------------------------- operations


def train(inputs: Arrays, settings: Settings) -> Arrays:
    """Train springs; say after every step what each rank has.

    initial (n,), targets (steps, micro-batches, n), and micro_batch (ranks, micro-steps), which
    micro-batches each rank takes in a step.  A shard is laid out as docs/golden.md shows.

        gradient        the worker's sum over the step's micro-batches, this rank's shard
        combined        what the gradient axis made of it
        parameters      this rank's shard after the step (and after the sync, if there was one)
        momentum, ...   the optimizer's state
        residual        of gtc, onebit and topk; owned: onebit's other one, of the owner of a chunk
        message         gtc: the bytes that this rank sent
        global_model    bmuf, diloco: W; and of these block_update, D, and outer_momentum, u
        model           the whole model that is evaluated in the end, after the last block
    """
    grid = Grid(*settings["grid"])

    def body(comm: Communicator) -> Any:
        return Rank(comm, grid, inputs, settings).train()

    ends = spawn((0,) * grid.world, body)
    model = ends[0].pop("model")[0]
    found: Arrays = {}
    for name in ends[0]:
        longest = max((row.size for end in ends for row in end.get(name, ())), default=0)
        steps = len(ends[0][name])
        rows = [[end[name][s] for end in ends] for s in range(steps)]
        if name == "message":
            found["message_size"] = np.array([[m.size for m in row] for row in rows])
        found[name] = np.stack([padded(row, longest) for row in rows])
    return found | {"model": model}


class Rank(Listener):
    """One rank's replica, and what it has after each step: it listens to its own events."""

    kinds = frozenset({"phase", "value"})

    def __init__(self, comm: Communicator, grid: Grid, inputs: Arrays, settings: Settings) -> None:
        self.inputs, self.settings, self.comm = inputs, settings, comm
        self.found: dict[str, list[np.ndarray]] = {}
        dtype = inputs["initial"].dtype
        self.replica = Replica(
            springs.network(settings["units"], inputs["initial"]),
            Groups.split(comm, grid),
            collectives.get(settings["collectives"]),
            optim.make(settings["optimizer"], **settings["hyper"]),
            _methods(settings),
            StepOptions(batch=1, microsteps=settings["microsteps"], dtype=dtype.name),
        )
        self.replica.loss = springs.Loss()

    def keep(self, name: str, value: np.ndarray) -> None:
        """Append a copy."""
        self.found.setdefault(name, []).append(np.array(value))

    def begin(self, event: Event) -> None:
        """Keep the gradient before it is combined, the message, and what came of it.

        Where there is any rounding, make sure that none can turn a decision: ``margin`` says how
        near each one was, in units of what it decides about.
        """
        if event.name == "combine":
            self.keep("gradient", event.value)
        elif event.name in ("message", "combined"):
            self.keep(event.name, event.value)
        elif event.name == "margin" and not self.settings["exact"]:
            assert (np.abs(event.value) > MARGIN).all(), "a decision too near: draw others"

    def train(self) -> dict[str, list[np.ndarray]]:
        """Take all steps."""
        replica, targets = self.replica, self.inputs["targets"]
        mine = self.inputs["micro_batch"][self.comm.rank]
        labels = np.zeros(1, np.int64)
        for step in range(len(targets)):

            def batches(microstep: int, step: int = step) -> tuple[np.ndarray, np.ndarray]:
                return targets[step, mine[microstep]][None], labels

            with self.comm.events.listen(self):
                replica.step(batches, self.settings["lr"])
            for axis in (replica.gradient, replica.block):
                for name, leaf in () if axis is None else axis.state().items():
                    if isinstance(leaf.value, np.ndarray):
                        self.keep(name, leaf.value)
            for name in replica.optimizer.states:
                self.keep(name, replica.partition.states[name])
            self.keep("parameters", replica.partition.weights())
        replica.end_block(self.settings["lr"])
        with replica.evaluated():
            values = [value.flatten() for _, value in replica.partition.each()]
        self.keep("model", np.concatenate(values))
        replica.groups.free()
        return self.found


def _methods(settings: Settings) -> Methods:
    """Return the methods of a case; what it says of one stands under its name."""
    row = strategy(settings["strategy"])

    def given(name: str) -> Settings:
        said = settings.get(name)
        return said if isinstance(said, dict) else {}  # "exact" says how numbers were drawn

    return Methods(
        row.partition.of({"zero_stage": settings["stage"]}),
        row.gradient(**given(row.gradient.name)),
        row.block(**given(row.block.name)) if row.block else None,
    )


# --------------------------------------------------------------------------------------- cases


def bundles() -> Iterator[Bundle]:
    """Yield a bundle for each strategy, first one step of all of them, then ten."""
    for rung, steps in (("one step", 1), ("ten steps", 10)):
        for name, row in STRATEGIES.items():
            yield Bundle(
                f"{rung.replace(' ', '-')}.{name}",
                rung,
                f"{rung} of {name}: {row.summary}",
                tuple(_cases(name, steps)),
            )
    for name, (text, made) in MORE.items():
        yield Bundle(
            f"ten-steps.{name}", "ten steps", f"ten steps {text}", tuple(_more_cases(made))
        )


def _cases(name: str, steps: int) -> Iterator[Case]:
    row = strategy(name)
    for world in (1,) if row.serial else WORLDS:
        yield _case(f"n{world}", row, world, min(2, world), steps, "momentum")
    if row.gradient is not Exact or row.block is not None or row.serial:
        return
    if "P" in row.given:
        yield _case("n8.partition4", row, 8, 4, steps, "momentum")
    if steps > 1 and row.choose({}).partition.stage in (0, 3):
        yield _case("n4.adam", row, 4, 2, steps, "adam")


# An option at a time: what is shown; label, row, ranks, optimizer, what the block method is given.
MORE: dict[str, tuple[str, tuple[tuple[str, str, int, str, Settings], ...]]] = {
    "warm-start": (
        "with blocks, of which all ranks take the first four as one",
        (
            ("bmuf.n4", "bmuf", 4, "momentum", {"warm": 4}),
            ("gtc-bmuf.n8", "gtc-bmuf", 8, "momentum", {"warm": 4}),
            ("mics-diloco.n8", "mics-diloco", 8, "momentum", {"warm": 4}),
        ),
    ),
    "local-state": (
        "with blocks, over which the optimizer's state is kept or not",
        (
            ("adam.n4", "bmuf", 4, "adam", {}),
            ("adam.reset.n4", "bmuf", 4, "adam", {"keep_momentum": False}),
            ("momentum.kept.n4", "bmuf", 4, "momentum", {"keep_momentum": True}),
        ),
    ),
}


def _more_cases(made: tuple[tuple[str, str, int, str, Settings], ...]) -> Iterator[Case]:
    for label, name, world, optimizer, option in made:
        yield _case(label, strategy(name), world, 2, 10, optimizer, option)


def _case(
    label: str,
    row: Strategy,
    world: int,
    partition: int,
    steps: int,
    optimizer: str,
    block: Settings | None = None,
) -> Case:
    exact = steps == 1
    given = {"partition": partition} if "P" in row.given else {}
    if "G" in row.given:
        given["gtc_group"] = max(1, world // given.get("partition", 1) // 2)
    grid, methods = row.grid(world, given), row.choose(given)
    microsteps = MICRO_BATCHES // world
    make = draw.dyadic if exact else draw.rough
    initial = make(f"springs {steps} initial {SALT}", sum(UNITS), 1.0)
    targets = make(f"springs {steps} targets {SALT}", (steps, MICRO_BATCHES, sum(UNITS)), 2.0)
    hyper = {"momentum": 0.5} if exact else {"momentum": 0.9, "weight_decay": 0.01}
    settings: Settings = {
        "strategy": row.name,
        "grid": [grid.blocks, grid.gradient, grid.partition],
        "stage": methods.partition.stage,
        "gradient": methods.gradient.name,
        "units": UNITS,
        "microsteps": microsteps,
        "frames": MICRO_BATCHES // grid.blocks,
        "collectives": "ring",
        "optimizer": optimizer,
        "hyper": optim.hyper(optimizer) | (hyper if optimizer == "momentum" else {}),
        "lr": 0.25 if exact else 0.1,
        "exact": exact,
    }
    for method in methods.each():
        example = row.example(method, grid.blocks, steps)
        if example:
            settings[method.name] = example | (block or {} if method is methods.block else {})
    takes = [[grid.micro_batch(r, m, microsteps) for m in range(microsteps)] for r in range(world)]
    rule = EXACT if exact else _TEN

    def answer(name: str) -> Answer:
        return {
            "gradient": Answer("step rank element", rule, "detail"),
            "message_size": Answer("step rank", INTEGERS, "detail"),
            "message": Answer("step rank byte", BYTES, "detail"),
            "model": Answer("element", rule),
        }.get(name, Answer("step rank element", rule))

    return case(
        label,
        train,
        f"{grid.sentence()}, {microsteps} micro-steps",
        settings,
        {
            "initial": (initial, "element"),
            "targets": (targets, "step micro_batch element"),
            "micro_batch": (np.array(takes), "rank micro_step"),
        },
        answer,
    )


_TEN = Rule("additions are ordered and fused as a backend likes; differences add up", ulp=64)
