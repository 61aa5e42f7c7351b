"""What trains in the last rungs: every rank a thread with springs, and what each has after a step.

Who takes which micro-batch, where nothing else is said: `Grid.micro_batch`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refimpl import collectives, optim
from refimpl.golden.bundle import Rule, padded
from refimpl.golden.cases import springs
from refimpl.golden.cases.ask import BYTES, INTEGERS, Answer, Arrays, Settings
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods, strategy
from refimpl.optim import schedule
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid

MARGIN = 2.0**-15
TEN = Rule("additions are ordered and fused as a backend likes; differences add up", ulp=64)


def train(inputs: Arrays, settings: Settings) -> Arrays:
    """Train springs; say after every step what each rank has.

    initial (n,), targets (steps, micro-batches, n), and micro_batch (ranks, micro-steps), which
    micro-batches each rank takes in a step.  A shard is laid out as docs/golden.md shows.

        gradient        the worker's sum over the step's micro-batches, this rank's shard
        combined        what the gradient axis made of it
        parameters      this rank's shard after the step (and after the sync, if there was one)
        momentum, ...   the optimizer's state
        velocity        of gtc with momentum correction: u
        residual        of gtc, onebit and topk; owned: onebit's other one, of the owner of a chunk
        message         gtc: the bytes that this rank sent
        secondary       its part of what its node has kept for backward passes, with ``nodes``
        global_model    bmuf, diloco: W; and of these block_update, D, and outer_momentum, u
        model           the whole model that is evaluated in the end, after the last block
    """
    return _run(Rank, inputs, settings)


def train_frames(inputs: Arrays, settings: Settings) -> Arrays:
    """Train springs as `train` does, on micro-batches of unequal length, and say who takes which.

    initial (n,), targets (steps, micro-batches, n), and frames (steps, micro-batches), how many
    frames of a micro-batch have its row as their targets.  A block's sum is divided by the frames
    of its micro-batches in this step; settings clip (or null), schedule and every_microstep.

    micro_batch (ranks, micro-steps) comes out, no gradient, onebit's messages too, and of gtc
    the tau of the next step.
    """
    grid = Grid(*settings["grid"])
    chosen = takes(grid, settings["microsteps"])
    return {"micro_batch": chosen} | _run(Unequal, inputs | {"micro_batch": chosen}, settings)


def takes(grid: Grid, microsteps: int) -> NDArray[np.int64]:
    """Return which micro-batches of a step each rank takes (ranks, micro-steps)."""
    ranks, each = range(grid.world), range(microsteps)
    return np.array([[grid.micro_batch(r, m, microsteps) for m in each] for r in ranks])


def answer(name: str, rule: Rule) -> Answer:
    """Return what an array that comes out is."""
    return {
        "gradient": Answer("step rank element", rule, "detail"),
        "message_size": Answer("step rank", INTEGERS, "detail"),
        "message": Answer("step rank byte", BYTES, "detail"),
        "micro_batch": Answer("rank micro_step", INTEGERS),
        "seen": Answer("step rank element", INTEGERS),
        "model": Answer("element", rule),
    }.get(name, Answer("step rank element", rule))


def _run(kind: type[Rank], inputs: Arrays, settings: Settings) -> Arrays:
    """Return what all ranks have, step by step."""
    grid = Grid(*settings["grid"])

    def body(comm: Communicator) -> Any:
        return kind(comm, grid, inputs, settings).train()

    ends = spawn(settings.get("nodes") or (0,) * grid.world, body)
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
    """One rank's replica, and what it has after each step: it listens to its own events.

    ``told``: of which methods messages are kept.
    """

    kinds = frozenset({"phase", "value"})
    told: tuple[str, ...] = ("gtc",)
    names: ClassVar[dict[str, str]] = {"combine": "gradient", "combined": "combined"}

    def __init__(self, comm: Communicator, grid: Grid, inputs: Arrays, settings: Settings) -> None:
        self.inputs, self.settings, self.comm = inputs, settings, comm
        self.found: dict[str, list[np.ndarray]] = {}
        self.replica = Replica(
            springs.network(settings["units"], inputs["initial"]),
            Groups.split(comm, grid),
            collectives.get(settings["collectives"]),
            optim.make(settings["optimizer"], **settings["hyper"]),
            _methods(settings),
            self.options(),
        )
        self.replica.loss = springs.Loss()

    def options(self) -> StepOptions:
        """Return what the replica needs to know."""
        dtype = self.inputs["initial"].dtype.name
        return StepOptions(batch=1, microsteps=self.settings["microsteps"], dtype=dtype)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.settings["lr"]

    def counts(self, step: int) -> NDArray[np.int64] | None:
        """Return the frames of each micro-batch of a step, if they are not all 1."""
        return None

    def keep(self, name: str, value: np.ndarray) -> None:
        """Append a copy."""
        self.found.setdefault(name, []).append(np.array(value))

    def begin(self, event: Event) -> None:
        """Keep the gradient before it is combined, the message, and what came of it.

        Where there is any rounding, make sure that none can turn a decision: ``margin`` says how
        near each one was, in units of what it decides about.
        """
        if event.name in self.names:
            self.keep(self.names[event.name], event.value)
        elif event.name == "message" and self.settings["gradient"] in self.told:
            self.keep("message", event.value)
        elif event.name == "margin" and not self.settings["exact"]:
            assert (np.abs(event.value) > MARGIN).all(), "a decision too near: draw others"

    def train(self) -> dict[str, list[np.ndarray]]:
        """Take all steps."""
        replica, targets = self.replica, self.inputs["targets"]
        grid, mine = replica.groups.grid, self.inputs["micro_batch"][self.comm.rank]
        for step in range(len(targets)):
            counts, frames = self.counts(step), None
            if counts is not None:  # those of the own block
                own = np.split(counts, grid.blocks)[grid.place(self.comm.rank).block]
                frames = int(own.sum())

            def batches(
                microstep: int, rows: np.ndarray = targets[step], counts: Any = counts
            ) -> tuple[np.ndarray, np.ndarray]:
                number = mine[microstep]
                x = np.repeat(rows[number][None], 1 if counts is None else counts[number], 0)
                return x, np.zeros(len(x), np.int64)

            with self.comm.events.listen(self):
                replica.step(batches, self.rate(step), frames)
            for axis in (replica.gradient, replica.block):
                for name, leaf in () if axis is None else axis.state().items():
                    self.look(name, leaf.value)
            for name in replica.optimizer.states:
                self.keep(name, replica.partition.states[name])
            self.keep("parameters", replica.partition.weights())
            near = getattr(replica.partition, "near", None)
            if near is not None:
                self.keep("secondary", near.shard)
        replica.end_block(self.rate(len(targets) - 1))
        with replica.evaluated():
            values = [value.flatten() for _, value in replica.partition.each()]
        self.keep("model", np.concatenate(values))
        replica.groups.free()
        return self.found

    def look(self, name: str, value: Any) -> None:
        """Keep what a method's state has, if it is an array."""
        if isinstance(value, np.ndarray):
            self.keep(name, value)


class Unequal(Rank):
    """A rank whose micro-batches have as many frames as the case says."""

    told = ("gtc", "onebit")
    names: ClassVar[dict[str, str]] = {"combined": "combined"}

    def options(self) -> StepOptions:
        """Return what the replica needs to know."""
        settings, most = self.settings, int(self.inputs["frames"].max())
        return StepOptions(most, settings["microsteps"], clip=settings["clip"])

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, by the schedule."""
        told = self.settings["schedule"]
        made = schedule.make(told["name"], self.settings["lr"], **told["hyper"])
        return made.rate(step, told["steps_per_epoch"])

    def counts(self, step: int) -> NDArray[np.int64]:
        """Return the frames of each micro-batch of a step."""
        return self.inputs["frames"][step]

    def look(self, name: str, value: Any) -> None:
        """Keep arrays, and gtc's threshold of the next step."""
        super().look(name, np.array(value[:1], np.float32) if name == "tau" else value)


def _methods(settings: Settings) -> Methods:
    """Return the methods of a case; what it says of one stands under its name."""
    row = strategy(settings["strategy"])

    def given(name: str) -> Settings:
        said = settings.get(name)
        return said if isinstance(said, dict) else {}  # "exact" says how numbers were drawn

    near = "node" if settings.get("nodes") else "none"
    often = {"every_microstep": True} if settings.get("every_microstep") else {}
    return Methods(
        row.partition.of({"zero_stage": settings["stage"], "secondary_shards": near}),
        row.gradient(**given(row.gradient.name), **often),
        row.block(**given(row.block.name)) if row.block else None,
    )
