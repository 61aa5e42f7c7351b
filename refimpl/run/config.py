"""The configuration of a run: a model's recipe, what the command line changed, checked once.

A `Recipe` comes with the model file and holds the hyper-parameters that go with the model.  A
`Run` is what one training run will do, down to the last value; it is what ``config.json`` in the
run's folder records.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from refimpl import collectives, optim
from refimpl.methods.block.bmuf import BlockOptions
from refimpl.methods.gradient.gtc.method import RESIDUALS, ThresholdOptions
from refimpl.methods.step import StepOptions
from refimpl.methods.strategies import strategy
from refimpl.optim import Optimizer
from refimpl.support.errors import UserError, listed, require_types
from refimpl.world.topology import Grid

REDUCTIONS = ("float", "exact")
SYNCS = ("two-hop", "every-microstep")
DTYPES = ("float32", "float64")

# Options of the methods, by the names that the command line gives them.
COMPRESSION = (
    "tau",
    "tau_units",
    "wire_format",
    "gtc_warmup",
    "target_density",
    "residual_clip",
    "residual_clip_every",
)
BLOCKS = (
    "block_steps",
    "block_momentum",
    "block_lr",
    "block_method",
    "local_momentum",
    "residuals",
)


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters that go with a model; every one can be changed on the command line.

    Types are checked when it is made, values by `Run.check`.

    ``batch`` counts frames per rank and micro-step.  ``lr`` multiplies the mean gradient over all
    frames of a step.  ``tau`` is GTC's threshold for gradients summed over a worker's frames of a
    step, ``block_steps`` BMUF's block, both used by strategies that have them.  Hyper-parameters
    of the optimizer (``momentum``, ``weight_decay``) and of the schedule (``warmup``, ``decay``)
    left at None keep the defaults of `refimpl.optim`.  ``settings`` are keywords of the task's
    settings class.
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
    tau: float = 8.0
    block_steps: int = 50
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_types(self, "recipe's")


@dataclass(frozen=True)
class Run:
    """Everything that decides what a run computes, and where it writes.

    ``compression`` and ``blocks`` are what was given of GTC's (or one-bit's) and BMUF's options,
    by the names in `COMPRESSION` and `BLOCKS`; ``steps`` ends a run before its epochs do.
    """

    model: str
    recipe: Recipe
    options: dict[str, str] = field(default_factory=dict)
    data: str | None = None
    strategy: str = "ddp"
    partition: int | None = None
    zero_stage: int | None = None
    gtc_group: int | None = None
    compression: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, Any] = field(default_factory=dict)
    collectives: str = "ring"
    reduction: str = "float"
    sync: str = "two-hop"
    prefetch: bool = False
    dtype: str = "float32"
    ranks_per_node: int | None = None
    steps: int | None = None
    seed: int = 0

    def grid(self, world: int) -> Grid:
        """Return the rank grid of this run."""
        return strategy(self.strategy).grid(world, self.partition, self.gtc_group)

    @property
    def stage(self) -> int:
        """What is sharded along the partition axis."""
        row = strategy(self.strategy)
        if row.stage is None:
            return 3 if self.zero_stage is None else self.zero_stage
        return row.stage

    def check(self, world: int) -> None:
        """Refuse what cannot run, where all the numbers are together.  Needs no messages.

        Raises
        ------
        UserError
            For the first value that is wrong; the same on every rank.
        """
        row = strategy(self.strategy)
        self.grid(world)
        if self.zero_stage is not None and row.stage is not None:
            raise UserError(
                f"--zero-stage {self.zero_stage} does not go with strategy {self.strategy}: "
                "use --strategy mics"
            )
        family = collectives.get(self.collectives)
        if self.prefetch and (self.stage != 3 or family.ahead is None):
            raise UserError(
                f"--prefetch does not go with strategy {self.strategy}, ZeRO stage {self.stage} "
                f"and collectives {self.collectives}: parameters must be sharded (stage 3: zero3, "
                "mics) and gathered by collectives ring"
            )
        self._check_methods()
        recipe = self.recipe
        for name, value, known in (
            ("--reduction", self.reduction, REDUCTIONS),
            ("--sync", self.sync, SYNCS),
            ("--dtype", self.dtype, DTYPES),
        ):
            self._check_name(name, value, known)
        for name, number, least in (
            ("--batch", recipe.batch, 1),
            ("--microsteps", recipe.microsteps, 1),
            ("--epochs", recipe.epochs, 1),
            ("--steps", self.steps, 1),
            ("--ranks-per-node", self.ranks_per_node, 1),
        ):
            if number is not None and number < least:
                raise UserError(f"{name} {number}: must be at least {least}")
        for name, number in (("--lr", recipe.lr), ("--clip", recipe.clip)):
            if number is not None and not 0 < number < float("inf"):
                raise UserError(f"{name} {number}: must be a positive number")
        self.optimizer(), self.schedule()

    def _check_methods(self) -> None:
        """Refuse options of a method that the strategy does not have, and impossible values."""
        row = strategy(self.strategy)
        takes = {"gtc": COMPRESSION, "onebit": ("gtc_warmup",)}.get(row.gradient, ())
        for name in self.compression:
            if name not in takes:
                self._misplaced(name, "gtc" if name != "gtc_warmup" else "gtc or onebit")
        for name in self.blocks:
            if not row.blockwise or (name == "residuals" and not row.hybrid):
                self._misplaced(name, "gtc-bmuf" if name == "residuals" else "bmuf or gtc-bmuf")
        if row.gradient == "gtc":
            self.threshold().check()
        if row.gradient in ("gtc", "onebit") and self.sync != "two-hop":
            raise UserError(
                f"--sync {self.sync} does not go with strategy {self.strategy}: what compresses "
                "sends once a step; leave it out"
            )
        if row.blockwise:
            self.block().check()
        for name, known in (
            ("residuals", RESIDUALS),
            ("block_method", ("cbm", "nbm")),
            ("local_momentum", ("keep", "reset")),
        ):
            value = self.blocks.get(name, known[0])
            self._check_name(f"--{name.replace('_', '-')}", value, known)

    @staticmethod
    def _check_name(option: str, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            raise UserError(f"{option} {value}: choose one of {listed(known)}")

    def _misplaced(self, name: str, instead: str) -> None:
        raise UserError(
            f"--{name.replace('_', '-')} does not go with strategy {self.strategy}: leave it "
            f"out, or use --strategy {instead}"
        )

    def threshold(self) -> ThresholdOptions:
        """Return GTC's options: the recipe's tau, and what was given."""
        given = self.compression
        return ThresholdOptions(
            tau=given.get("tau", self.recipe.tau),
            units=given.get("tau_units", "sum"),
            format=given.get("wire_format", "auto"),
            warmup=given.get("gtc_warmup", 0),
            target=given.get("target_density"),
            clip_every=given.get("residual_clip_every", 0),
            clip_at=given.get("residual_clip", 5.0),
        )

    def block(self) -> BlockOptions:
        """Return BMUF's options: the recipe's block, and what was given."""
        given = self.blocks
        return BlockOptions(
            steps=given.get("block_steps", self.recipe.block_steps),
            eta=given.get("block_momentum"),
            zeta=given.get("block_lr", 1.0),
            nesterov=given.get("block_method", "nbm") == "nbm",
        )

    def step_options(self) -> StepOptions:
        """Return what one step needs to know of this run."""
        row = strategy(self.strategy)
        return StepOptions(
            stage=self.stage,
            batch=self.recipe.batch,
            microsteps=self.recipe.microsteps,
            exact=self.reduction == "exact",
            every_microstep=self.sync == "every-microstep",
            prefetch=self.prefetch,
            clip=self.recipe.clip,
            dtype=self.dtype,
            gradient=row.gradient or "exact",
            threshold=self.threshold() if row.gradient == "gtc" else None,
            warmup=self.compression.get("gtc_warmup", 0),
            block=self.block() if row.blockwise else None,
            residuals=self.blocks.get("residuals", "keep"),
            keep_momentum=self.blocks.get("local_momentum", "reset") == "keep",
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
        """Return the run that `to_dict` wrote; its types are checked, as is ``dtype``."""
        run = cls(**dict(plain, recipe=Recipe(**plain["recipe"])))
        require_types(run, "run's")
        run._check_name("--dtype", run.dtype, DTYPES)
        return run


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return the recipe with the given fields changed; None leaves a field as it is.

    Another optimizer or schedule does not inherit the hyper-parameters of the recipe's own.
    """
    given = _given(changes)
    assert set(given) <= {field.name for field in fields(Recipe)}, given
    inherited = {"optimizer": ("momentum", "weight_decay"), "schedule": ("warmup", "decay")}
    for choice, hyper in inherited.items():
        if given.get(choice, getattr(recipe, choice)) != getattr(recipe, choice):
            given = dict.fromkeys(hyper) | given
    return replace(recipe, **given)
