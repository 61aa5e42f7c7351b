"""The last rungs: one step and ten of every strategy, on 1, 2, 4 and 8 ranks.

The model is that of `refimpl.golden.cases.springs`.  A step has 8 micro-batches, whatever the
number of ranks, so that every strategy that is exact trains as serial does.

    one step     values of few digits: nothing is rounded, equal bits for any order of sums
    ten steps    values with all their digits, which every backend rounds in its own way; but no
                 decision (beyond tau or not, plus or minus) is so near that it could differ;
                 and the cases of `varied`
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl import optim
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.cases import varied
from refimpl.golden.cases.ask import EXACT, Settings, case
from refimpl.golden.cases.trained import TEN, answer, takes, train
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.strategies import STRATEGIES, Strategy, strategy

UNITS = [9, 5, 2]  # 16 in all; no piece of the first two is a whole one on 2 or more ranks
MICRO_BATCHES = 8
WORLDS = (1, 2, 4, 8)
SALT = 0  # another number, another draw: where a decision would be too near


def bundles() -> Iterator[Bundle]:
    """Yield a bundle for each strategy, first one step of all of them, then ten."""
    for rung, steps in (("one step", 1), ("ten steps", 10)):
        for name, row in STRATEGIES.items():
            yield Bundle(
                f"{rung.replace(' ', '-')}.{name}",
                rung,
                f"{rung} of {name}: {row.summary}",
                (*_cases(name, steps), *(varied.cases(row) if steps > 1 else ())),
            )
    for name, (text, made) in MORE.items():
        yield Bundle(
            f"ten-steps.{name}", "ten steps", f"ten steps {text}", tuple(_more_cases(made))
        )
    nodes = [0, 1, 0, 0]  # neither equal nor neighbours
    yield Bundle(
        "ten-steps.secondary-shards",
        "ten steps",
        "ten steps of stage 3, whose backward passes gather what their node has kept",
        (_case("zero3.n4", strategy("zero3"), 4, 2, 10, "momentum", nodes=nodes),),
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


# An option at a time: what is shown; label, row, ranks, optimizer, what methods are given.
MORE: dict[str, tuple[str, tuple[tuple[str, str, int, str, Settings], ...]]] = {
    "warm-start": (
        "with blocks, of which all ranks take the first four as one",
        (
            ("bmuf.n4", "bmuf", 4, "momentum", {"bmuf": {"warm": 4}}),
            ("gtc-bmuf.n8", "gtc-bmuf", 8, "momentum", {"bmuf": {"warm": 4}}),
            ("mics-diloco.n8", "mics-diloco", 8, "momentum", {"diloco": {"warm": 4}}),
        ),
    ),
    "local-state": (
        "with blocks, over which the optimizer's state is kept or not",
        (
            ("adam.n4", "bmuf", 4, "adam", {}),
            ("adam.reset.n4", "bmuf", 4, "adam", {"bmuf": {"keep_momentum": False}}),
            ("momentum.kept.n4", "bmuf", 4, "momentum", {"bmuf": {"keep_momentum": True}}),
        ),
    ),
    "gtc-local": (
        "of what workers do with their gradient before it is compressed",
        (
            ("clip.n4", "gtc", 4, "momentum", {"gtc": {"local_clip": 4.0}}),
            ("momentum.n4", "gtc", 4, "sgd", {"gtc": {"correction": 0.5}}),
            ("both.n8", "mics-gtc", 8, "sgd", {"gtc": {"local_clip": 4.0, "correction": 0.5}}),
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
    more: Settings | None = None,
    nodes: list[int] | None = None,
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
        **({"nodes": nodes} if nodes else {}),
    }
    for method in methods.each():
        example = row.example(method, grid.blocks, steps) | (more or {}).get(method.name, {})
        if example:
            settings[method.name] = example
    rule = EXACT if exact else TEN
    return case(
        label,
        train,
        f"{grid.sentence()}, {microsteps} micro-steps",
        settings,
        {
            "initial": (initial, "element"),
            "targets": (targets, "step micro_batch element"),
            "micro_batch": (takes(grid, microsteps), "rank micro_step"),
        },
        lambda name: answer(name, rule),
    )
