"""The configuration of a run: a model's recipe, what the command line changed, checked once.

A `Recipe` comes with the model file and holds the hyper-parameters that go with the model.  A
`Run` is what one training run will do, down to the last value; it is what ``config.json`` in the
run's folder records.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from refimpl import collectives, optim
from refimpl.collectives import Collectives
from refimpl.collectives.cost import Links
from refimpl.methods import strategies, traffic
from refimpl.methods.calls import Setting
from refimpl.methods.step import StepOptions
from refimpl.methods.strategies import Methods, Strategy, strategy
from refimpl.nn.flat import Layout, one_unit
from refimpl.optim import Optimizer
from refimpl.support.errors import UserError, brief, listed, require_types, typed
from refimpl.world.topology import Grid, Nodes

REDUCTIONS = ("float", "exact")
COLLECTIVES = "ring"
MAPS = ("by-rank", "by-node")
DTYPES = ("float32", "float64")
LARGEST = 1e30  # of numbers that are measured, not counted


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters that go with a model; every one can be changed on the command line.

    Types are checked when it is made, values by `Run.check`.

    ``batch`` counts frames per rank and micro-step.  ``lr`` multiplies the mean gradient over all
    frames of a step, whose norm is at most ``clip`` (None and 0: any).  ``methods`` are options of
    the methods of the axes, such as ``tau`` and ``block_steps``, for strategies that have them.
    Hyper-parameters of the optimizer (``momentum``, ``weight_decay``) and of the schedule
    (``warmup``, ``decay``) left at None keep the defaults of `refimpl.optim`.  ``settings`` are
    keywords of the task's settings class.
    """

    task: str
    epochs: int
    lr: float
    batch: int = 256
    microsteps: int = 1
    optimizer: str = "momentum"
    momentum: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    schedule: str = "constant"
    warmup: float | None = None
    decay: float | None = None
    methods: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_types(self, "recipe's")


@dataclass(frozen=True)
class Run:
    """Everything that decides what a run computes, and where it writes.

    ``methods`` is what was given of the methods' options, by the names of their flags
    (``gtc_group``, ``block_steps``); ``steps`` ends a run before its epochs do.  ``map`` says in
    which order ranks fill the grid: the launcher's, or node by node.  ``links`` are what ``auto``
    chooses by (`Links.plain`): part of the run, since another choice adds in another order.
    """

    model: str
    recipe: Recipe
    options: dict[str, str] = field(default_factory=dict)
    data: str | None = None
    strategy: str = "ddp"
    methods: dict[str, Any] = field(default_factory=dict)
    collectives: str = COLLECTIVES
    links: dict[str, float] | None = None
    reduction: str = "float"
    dtype: str = "float32"
    ranks_per_node: int | None = None
    map: str = "by-rank"
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self, "run's")

    @property
    def row(self) -> Strategy:
        """The strategy's row of the table."""
        return strategy(self.strategy)

    def grid(self, world: int) -> Grid:
        """Return the rank grid of this run."""
        return self.row.grid(world, self.methods)

    def chosen(self) -> Methods:
        """Return the methods of the axes, with their options."""
        return self.row.choose(self.methods, self.recipe.methods)

    def family(self) -> Collectives:
        """Return the collectives of this run.

        Raises `UserError` if there are none of that name, or they have no use for the links.
        """
        if self.links is None:
            return collectives.get(self.collectives)
        if self.collectives != collectives.Auto.name:
            raise UserError(
                "--links is what --collectives auto chooses by, and these are "
                f"{self.collectives}: leave it out, or use auto"
            )
        return collectives.Auto(Links.of(self.links, "--links"))

    def setting(self, nodes: Nodes, layout: Layout) -> Setting:
        """Return what the closed formulas of this run are filled in with."""
        return Setting(
            self.grid(len(nodes.node)),
            nodes,
            layout,
            self.family(),
            microsteps=self.recipe.microsteps,
            itemsize=8 if self.dtype == "float64" else 4,
            exact=self.reduction == "exact",
            every_microstep=self.chosen().gradient.every_microstep,
            clip=bool(self.recipe.clip),
        )

    def check(self, world: int) -> None:
        """Refuse what cannot run, where all the numbers are together.  Needs no messages.

        Raises
        ------
        UserError
            For the first value that is wrong; the same on every rank.
        """
        self.grid(world)
        self.check_values()
        why = self.unused_collectives(world)
        if why is not None:
            raise UserError(why)

    def unused_collectives(self, world: int) -> str | None:
        """Return why other collectives than the default would be of no use; None if they are."""
        if self.collectives == COLLECTIVES:
            return None
        layout = one_unit(1, self.grid(world).partition)
        return traffic.unused(self.chosen(), self.setting(Nodes.of(world), layout))

    def check_values(self) -> None:
        """Refuse values that no number of ranks could run with."""
        recipe = self.recipe
        known = strategies.options()
        for key in recipe.methods:
            if key not in known:
                raise UserError(f"the recipe's methods: no option {key!r}, only {listed(known)}")
        for one in strategies.methods():
            one.of(recipe.methods)  # those of other strategies, too
        self.chosen().refuse(self.family())
        for name, value, names in (
            ("--reduction", self.reduction, REDUCTIONS),
            ("--dtype", self.dtype, DTYPES),
            ("--map", self.map, MAPS),
        ):
            if value not in names:
                raise UserError(f"{name} {value}: choose one of {listed(names)}")
        for name, number, least, most in (
            ("--batch", recipe.batch, 1, 10**9),
            ("--microsteps", recipe.microsteps, 1, 10**9),
            ("--epochs", recipe.epochs, 1, 10**5),
            ("--steps", self.steps, 1, 10**15),
            ("--ranks-per-node", self.ranks_per_node, 1, 10**9),
            ("--seed", self.seed, 0, 10**15),
        ):
            if number is not None and not least <= number <= most:
                raise UserError(f"{name} {brief(number)}: give {least} to {most:,}")
        if not 0 < recipe.lr <= LARGEST:
            raise UserError(f"--lr {brief(recipe.lr)}: must be a positive number")
        if recipe.clip is not None and not 0 <= recipe.clip <= LARGEST:
            raise UserError(
                f"--clip {brief(recipe.clip)}: must be a positive number, or 0 for none"
            )
        for name in ("momentum", "weight_decay", "warmup", "decay"):
            size = getattr(recipe, name)
            if size is not None and not abs(size) <= LARGEST:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {brief(size)}: must be a finite number")
        if self.reduction == "exact" and self.dtype == "float64":
            raise UserError(
                "--reduction exact adds multiples of 2^-40, to which --dtype float64 brings "
                "digits that would be lost: use float32, or --reduction float"
            )
        self.optimizer(), self.schedule()

    def step_options(self) -> StepOptions:
        """Return what one step needs to know of this run."""
        return StepOptions(
            batch=self.recipe.batch,
            microsteps=self.recipe.microsteps,
            exact=self.reduction == "exact",
            clip=self.recipe.clip,
            dtype=self.dtype,
        )

    def optimizer(self) -> Optimizer:
        """Return the optimizer of the recipe."""
        recipe = self.recipe
        given = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
        return optim.make(recipe.optimizer, **_given(given))

    def schedule(self) -> optim.schedule.Schedule:
        """Return the learning-rate schedule of the recipe."""
        recipe = self.recipe
        given = {"warmup": recipe.warmup, "decay": recipe.decay}
        return optim.schedule.make(recipe.schedule, recipe.lr, **_given(given))

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain data, for ``config.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Run:
        """Return the run that `to_dict` wrote; what has been edited since is checked by name."""
        known = dict(plain)
        if isinstance(known.get("recipe"), dict):
            known["recipe"] = typed(Recipe, known["recipe"], "recipe value")
        run = typed(cls, known, "run value")
        run.check_values()
        return run


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return the recipe with the given fields changed; None leaves a field as it is.

    Another optimizer or schedule does not inherit the hyper-parameters of the recipe's own, and
    a learning rate means nothing to another optimizer: the one that is given goes with it.

    Raises `UserError` for another optimizer without a rate.
    """
    given = _given(changes)
    assert set(given) <= {field.name for field in fields(Recipe)}, given
    name = given.get("optimizer", recipe.optimizer)
    if name != recipe.optimizer and "lr" not in given:
        raise UserError(
            f"--optimizer {name}: give its --lr, too; the model's recipe is for "
            f"{recipe.optimizer}, whose rate of {recipe.lr:g} would mean something else"
        )
    inherited = {"optimizer": ("momentum", "weight_decay"), "schedule": ("warmup", "decay")}
    for choice, hyper in inherited.items():
        if given.get(choice, getattr(recipe, choice)) != getattr(recipe, choice):
            given = dict.fromkeys(hyper) | given
    return replace(recipe, **given)
