"""More of the last rung: steps of which no two are alike.

In the other cases all micro-batches have one frame, all counts are powers of two, and nothing is
clipped; so a mean of means, a norm over the wrong ranks, and 1 / frames rounded otherwise would
not be seen.  Here

    frames       0 to 4 in each micro-batch, and another sum in each step and block
    clip         some steps are longer than it, and others are not
    schedule     a warm-up of two of the three steps
    optimizer    AdamW with an epsilon that counts, and weight decay
    grid         p = 3 and 6; units of no and of one number
    methods      numbers that are no sums of few powers of two; classical block momentum, zeta

in one case of every row; and an option of a method at a time in the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from refimpl import optim
from refimpl.golden import draw
from refimpl.golden.bundle import Case, Rule
from refimpl.golden.cases.ask import Settings, case
from refimpl.golden.cases.trained import answer, train_frames
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.strategies import Strategy

UNITS = [4, 0, 1, 2]
MICRO_BATCHES, STEPS, MOST = 12, 3, 4
SHIFTS = (0.25, 2.0, -1.5)  # of a step's targets, which make its gradient long or short
SALT = 0  # another number, another draw: where a decision would be too near

MORE = Rule("rounded as a backend likes", ulp=64)

# What all rows with the method have in their case, where their name does not settle it.
USUAL: dict[str, Settings] = {
    "gtc": {"tau": 6.7},
    "topk": {"decay": 0.9},
    "bmuf": {"steps": 2, "eta": 0.3, "zeta": 0.7, "nesterov": False, "keep_momentum": False},
    "diloco": {"steps": 2, "rate": 0.7, "momentum": 0.9},
}
# The norm of the mean gradient that is clipped at: between those that occur.
CLIP = {"exact": 2.5, "gtc": 1.3, "onebit": 2.5, "topk": 2.5}

LIMIT: Settings = {"clip_at": 1.5, "clip_every": 1}  # of residuals

# Row, case, method, and which of its options are otherwise there; without clipping.
ALONE: tuple[tuple[str, str, str, Settings], ...] = (
    ("gtc", "mean.rice", "gtc", {"tau": 1.9, "units": "mean", "format": "rice"}),
    ("gtc", "warmup", "gtc", {"tau": 9.7, "warmup": 1, "clip_at": 1.0, "clip_every": 2}),
    ("gtc", "warmup.adaptive", "gtc", {"tau": 9.7, "warmup": 1, "target": 0.4} | LIMIT),
    ("mics-gtc", "adaptive", "gtc", {"tau": 13.9, "target": 0.4}),
    ("gtc-bmuf", "zero", "gtc", {"at_sync": "zero"}),
    ("gtc-bmuf", "fold", "gtc", {"at_sync": "fold"}),
    ("bmuf", "kept-momentum", "bmuf", {"keep_momentum": True}),
    ("bmuf", "frames", "bmuf", {"by_frames": True}),
    ("gtc-bmuf", "frames", "bmuf", {"by_frames": True}),
    ("onebit", "mask", "onebit", {"warmup": 1, "mask": True}),
    ("onebit", "mask.seen", "onebit", {"warmup": 2, "mask": True}),
    ("onebit", "columns", "onebit", {"by_columns": True}),
    ("topk", "warmup", "topk", {"warmup": 1}),
)


def cases(row: Strategy) -> Iterator[Case]:
    """Yield the cases of a row."""
    given = {}
    if "P" in row.given:
        given["partition"] = 3
    if "G" in row.given:
        given["gtc_group"] = 2 if "P" in row.given else 3
    world = int(np.prod(list(given.values()), dtype=int))
    world = {"1 1 1": 1, "n 1 1": 6}.get(row.lengths, world * (2 if given else 3))
    exact = row.gradient is Exact and row.block is None

    def one(label: str, clip: float | None, optimizer: str, **more: Any) -> Case:
        return _case(f"n{world}.{label}", row, world, given, clip, optimizer, **more)

    clip = CLIP.get(row.gradient.name)
    yield one("clipped", clip, "adamw")
    if exact and "P" in row.given:
        yield one("clipped.stage1", clip, "adamw", stage=1)
        yield one("adam.stage2", None, "adam", stage=2)
        yield one("every-microstep", None, "sgd", every_microstep=True)
    elif exact and not row.serial and row.choose({}).partition.stage == 0:
        yield one("unequal", None, "sgd", equal=False)
    elif exact and row.choose({}).partition.stage in (1, 2):  # 0 and 3: n4.adam
        yield one("adam", None, "adam")
    for name, label, method, options in ALONE:
        if name == row.name:
            optimizer = "momentum" if method == "bmuf" else "sgd"
            equal = not options.get("by_frames")
            yield one(label, None, optimizer, equal=equal, options={method: options})


HYPER: dict[str, Settings] = {
    "sgd": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "adam": {"eps": 0.0625, "weight_decay": 0.03},
    "adamw": {"eps": 0.0625, "weight_decay": 0.1},
}


def _case(
    label: str,
    row: Strategy,
    world: int,
    given: Settings,
    clip: float | None,
    optimizer: str,
    stage: int | None = None,
    every_microstep: bool = False,
    equal: bool = True,
    options: Mapping[str, Settings] = MappingProxyType({}),
) -> Case:
    grid, methods = row.grid(world, given), row.choose(given)
    n, microsteps = sum(UNITS), MICRO_BATCHES // world
    initial = draw.rough(f"varied initial {SALT}", n, 1.0)
    targets = draw.rough(f"varied targets {SALT}", (STEPS, MICRO_BATCHES, n), 2.0)
    targets += np.array(SHIFTS, np.float32)[:, None, None]
    one_bit, lr = options.get("onebit", {}), 0.1
    if one_bit.get("mask"):  # no gradient before the first decay
        targets[:, :, -1] = initial[-1]
    if one_bit.get("warmup") == 2:  # in one dense step, of one rank, and only later
        lr = 2.0**-60  # so that no parameter moves, and what has no gradient has none later
        targets[:2, :, -3:] = initial[-3:]
        targets[0, :microsteps, -3] += 1
        targets[1, -microsteps:, -2] += 1
        targets[2:, :, -1] += 1
    frames = draw.integers("varied frames 87", 0, MOST + 1, (STEPS, MICRO_BATCHES))
    # (of that name, as no sum over a block is a power of two)
    if clip is None and equal:
        frames[:] = 3  # equal, and no power of two
    settings: Settings = {
        "strategy": row.name,
        "grid": [grid.blocks, grid.gradient, grid.partition],
        "stage": methods.partition.stage if stage is None else stage,
        "gradient": methods.gradient.name,
        "units": UNITS,
        "microsteps": microsteps,
        "collectives": "ring",
        "optimizer": optimizer,
        "hyper": optim.hyper(optimizer) | HYPER[optimizer],
        "lr": lr,
        "schedule": {
            "name": "exponential",
            "hyper": {"decay": 0.7, "warmup": 1.0},
            "steps_per_epoch": 2,
        },
        "clip": clip,
        "every_microstep": every_microstep,
        "exact": False,
    }
    for method in methods.each():
        settled = {one.field for key, one in method.options().items() if key in row.preset}
        wanted = USUAL.get(method.name, {}) | options.get(method.name, {})
        fields = row.example(method, grid.blocks, STEPS)
        fields |= {field: value for field, value in wanted.items() if field not in settled}
        if fields:
            settings[method.name] = fields
    text = f"{grid.sentence()}, {microsteps} micro-steps; "
    text += "all frames alike" if clip is None and equal else "unequal frames"
    text += ", some steps clipped" if clip is not None else ""
    return case(
        label,
        train_frames,
        text,
        settings,
        {
            "initial": (initial, "element"),
            "targets": (targets, "step micro_batch element"),
            "frames": (frames, "step micro_batch"),
        },
        lambda name: answer(name, MORE),
    )
