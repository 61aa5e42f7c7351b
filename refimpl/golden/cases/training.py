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
from numpy.typing import NDArray

from refimpl import collectives, optim
from refimpl.collectives import chunks
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule, padded
from refimpl.golden.cases import springs
from refimpl.golden.cases.ask import BYTES, EXACT, INTEGERS, Answer, case
from refimpl.methods.block.bmuf import BlockOptions
from refimpl.methods.gradient.gtc import threshold, wire
from refimpl.methods.gradient.gtc.method import ThresholdCompression, ThresholdOptions
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import STRATEGIES
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid

Arrays = dict[str, NDArray]
Settings = dict[str, Any]

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
        residual        of gtc and onebit; owned: onebit's other one, of the owner of a chunk
        message         gtc: the bytes that this rank sent
        global_model    bmuf: W, and block_update: D
        model           the whole model that is evaluated in the end, after the last block
    """
    grid = Grid(*settings["grid"])

    def body(comm):
        return Rank(comm, grid, inputs, settings).train()

    ends = spawn((0,) * grid.world, body)
    found: Arrays = {"model": ends[0].pop("model")[0]}
    for name in ends[0]:
        longest = max((row.size for end in ends for row in end.get(name, ())), default=0)
        steps = len(ends[0][name])
        rows = [[end[name][s] for end in ends] for s in range(steps)]
        found[name] = np.stack([padded(row, longest) for row in rows])
        if name == "message":
            found["message_size"] = np.array([[m.size for m in row] for row in rows])
    return found


class Rank:
    """One rank's replica, and what it has after each step."""

    def __init__(self, comm, grid: Grid, inputs: Arrays, settings: Settings) -> None:
        self.inputs, self.settings, self.rank = inputs, settings, comm.rank
        self.found: dict[str, list[NDArray]] = {}
        replica = self.replica = Replica(
            springs.network(settings["units"], inputs["initial"]),
            Groups.split(comm, grid),
            collectives.get(settings["collectives"]),
            optim.make(settings["optimizer"], **settings["hyper"]),
            _options(settings, inputs["initial"].dtype),
        )
        replica.loss = springs.Loss()
        self.combine, replica.axis.combine = replica.axis.combine, self.watched

    def keep(self, name: str, value: NDArray) -> None:
        """Append a copy."""
        self.found.setdefault(name, []).append(np.array(value))

    def watched(self, gradient: NDArray) -> None:
        """Combine, and keep what was before and after."""
        axis = self.replica.axis
        self.keep("gradient", gradient)
        if isinstance(axis, ThresholdCompression):
            total = axis.residual + gradient
            self._decided(np.abs(total) - axis.tau, axis.tau)
            words = np.empty(total.size, np.uint32)
            words = threshold.encode(axis.residual.copy(), gradient, axis.tau, words)
            form = wire.choose(words, total.size, axis.options.format)
            self.keep("message", wire.encode(words, total.size, axis.tau, form))
        elif isinstance(axis, OneBit):
            total = axis.residual + gradient
            self._decided(total, float(np.abs(total).max()))
        self.combine(gradient)
        self.keep("combined", gradient)
        if isinstance(axis, OneBit):
            chunk = chunks.slices(gradient, axis.group.size)[axis.group.rank]
            owned = axis.owned + gradient[chunk]
            self._decided(owned, float(np.abs(owned).max()))
        for name in ("residual", "owned"):
            if name in axis.state():
                self.keep(name, axis.state()[name])

    def _decided(self, distance: NDArray, unit: float) -> None:
        """Make sure that no rounding can turn a decision, where there is any rounding."""
        if not self.settings["exact"]:
            assert (np.abs(distance) > MARGIN * unit).all(), "a decision too near: draw others"

    def train(self) -> dict[str, list[NDArray]]:
        """Take all steps."""
        replica, targets = self.replica, self.inputs["targets"]
        mine = self.inputs["micro_batch"][self.rank]
        labels = np.zeros(1, np.int64)
        for step in range(len(targets)):

            def batches(microstep, step=step):
                return targets[step, mine[microstep]][None], labels

            replica.step(batches, self.settings["lr"])
            shard = np.zeros(replica.states.layout.shard, self.inputs["initial"].dtype)
            self.keep("parameters", replica.states.own(shard))
            for name in replica.optimizer.states:
                self.keep(name, replica.states.states[name])
            if replica.blocks.active:
                self.keep("global_model", replica.blocks.model)
                self.keep("block_update", replica.blocks.update)
        replica.end_block(self.settings["lr"])
        with replica.evaluated():
            named = replica.states.parameters()
        self.keep("model", np.concatenate([value.ravel() for value in named.values()]))
        replica.groups.free()
        return self.found


def _options(settings: Settings, dtype: np.dtype) -> StepOptions:
    gtc, bmuf = settings.get("gtc"), settings.get("bmuf")
    return StepOptions(
        stage=settings["stage"],
        batch=1,
        microsteps=settings["microsteps"],
        dtype=dtype.name,
        gradient=settings["gradient"],
        threshold=ThresholdOptions(**gtc) if gtc else None,
        block=BlockOptions(**bmuf) if bmuf else None,
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


def _cases(name: str, steps: int) -> Iterator[Case]:
    for world in (1,) if name == "serial" else WORLDS:
        yield _case(f"n{world}", name, world, min(2, world), steps, "momentum")
    if name == "mics":
        yield _case("n8.partition4", name, 8, 4, steps, "momentum")
    if name in ("ddp", "zero3", "mics") and steps > 1:
        yield _case("n4.adam", name, 4, 2, steps, "adam")


def _case(
    label: str, strategy: str, world: int, partition: int, steps: int, optimizer: str
) -> Case:
    row, exact = STRATEGIES[strategy], steps == 1
    p = {"1": 1, "n": world, "given": partition}[row.partition]
    group = max(1, world // p // 2) if row.hybrid else None
    grid = row.grid(world, p if row.partition == "given" else None, group)
    microsteps = MICRO_BATCHES // world
    make = draw.dyadic if exact else draw.rough
    initial = make(f"springs {steps} initial {SALT}", sum(UNITS), 1.0)
    targets = make(f"springs {steps} targets {SALT}", (steps, MICRO_BATCHES, sum(UNITS)), 2.0)
    hyper = {"momentum": 0.5} if exact else {"momentum": 0.9, "weight_decay": 0.01}
    settings: Settings = {
        "strategy": strategy,
        "grid": [grid.blocks, grid.gradient, grid.partition],
        "stage": 3 if row.stage is None else row.stage,
        "gradient": row.gradient or "exact",
        "units": UNITS,
        "microsteps": microsteps,
        "frames": MICRO_BATCHES // grid.blocks,
        "collectives": "ring",
        "optimizer": optimizer,
        "hyper": optim.hyper(optimizer) | (hyper if optimizer == "momentum" else {}),
        "lr": 0.25 if exact else 0.1,
        "exact": exact,
    }
    if row.gradient == "gtc":
        settings["gtc"] = {"tau": 4.0, "units": "sum", "format": "auto"}
    if row.blockwise:
        settings["bmuf"] = {
            "steps": 1 if exact else 3,
            "eta": 1 - 1 / grid.blocks,
            "zeta": 1.0,
            "nesterov": True,
        }
    takes = [[grid.micro_batch(r, m, microsteps) for m in range(microsteps)] for r in range(world)]
    rule = EXACT if exact else _TEN
    each = Answer("step rank element", rule)
    answers = {"gradient": each._replace(role="detail")}
    if row.gradient == "gtc":
        answers["message_size"] = Answer("step rank", INTEGERS, "detail")
        answers["message"] = Answer("step rank byte", BYTES, "detail")
    answers["combined"] = each
    if row.gradient in ("gtc", "onebit"):
        answers["residual"] = each
    if row.gradient == "onebit":
        answers["owned"] = each
    if grid.blocks > 1:
        answers |= {"global_model": each, "block_update": each}
    answers |= dict.fromkeys(optim.make(optimizer).states, each)
    answers |= {"parameters": each, "model": Answer("element", rule)}
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
        answers,
    )


_TEN = Rule("additions are ordered and fused as a backend likes; differences add up", ulp=64)
