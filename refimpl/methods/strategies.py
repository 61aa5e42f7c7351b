"""Strategies: how many ranks train one model.  THE table.

A strategy is a row: the lengths of the three axes of the rank grid (`refimpl.world.topology`), a
method for each, and options that are settled by the name.  `refimpl.methods.step` composes the
methods; nothing else in the package knows a strategy or a method by its name.

    p   g   b      lengths of the partition, gradient and block axis: 1;  n, whatever ranks are
                   left;  P and G, as given by --partition and --gtc-group

A new row is a line here.  A new method is a file beside its neighbours in ``partition/``,
``gradient/`` or ``block/``, and a row that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from refimpl.collectives import Collectives
from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.block.diloco import DiLoCo
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.methods.gradient.topk.method import TopK
from refimpl.methods.options import Option, Options, least, misplaced, option
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.protocol import BlockMethod, GradientMethod, Method, PartitionMethod
from refimpl.support.errors import UserError, listed
from refimpl.world.topology import Grid


@dataclass(frozen=True)
class Lengths(Options):
    """The lengths of axes that a user gives."""

    partition: int | None = option(
        "--partition", None, "the ranks of one replica", least(1), metavar="P"
    )
    gtc_group: int | None = option(
        "--gtc-group",
        None,
        "the workers of one gradient group (a GTC group)",
        least(1),
        metavar="G",
    )


LETTERS = {"partition": "P", "gtc_group": "G"}


class Methods(NamedTuple):
    """A method for each axis, with its options: what a strategy comes down to."""

    partition: PartitionMethod = Whole()
    gradient: GradientMethod = Exact()
    block: BlockMethod | None = None

    def each(self) -> Iterator[Method]:
        """Yield the methods that there are."""
        yield from (method for method in self if method is not None)

    @property
    def warm_steps(self) -> int:
        """The length of the warm start; 0 without a block axis."""
        return 0 if self.block is None else self.block.warm

    def warm(self) -> Methods:
        """Return the methods of the warm start's steps: exact sums, on `Grid.joined`."""
        return Methods(self.partition, Exact(every_microstep=self.gradient.every_microstep))

    def refuse(self, collectives: Collectives) -> None:
        """Raise `UserError` if a method cannot run with these collectives."""
        for method in self.each():
            why = method.refusal(collectives)
            if why is not None:
                raise UserError(why)


@dataclass(frozen=True)
class Strategy:
    """One row of the table.

    ``lengths`` of the axes p, g and b; the method of each; ``preset``: options by key that the
    name settles.  ``usual``: among those that are compared when none are named.
    """

    name: str
    lengths: str
    partition: type[PartitionMethod]
    gradient: type[GradientMethod]
    block: type[BlockMethod] | None
    preset: Mapping[str, Any]
    summary: str
    usual: bool = False

    @property
    def given(self) -> set[str]:
        """The lengths that a user gives: P, G or both."""
        return set(self.lengths) & set("PG")

    @property
    def serial(self) -> bool:
        """Whether it runs on one rank only."""
        return self.lengths == "1 1 1"

    def methods(self) -> list[type[Options]]:
        """Return the classes of options: the lengths, then the methods, in order of the axes."""
        return [Lengths, *filter(None, (self.partition, self.gradient, self.block))]

    def options(self) -> dict[str, Option]:
        """Return the options that are a user's to give, by key."""
        found = {}
        for one in self.methods():
            alone = self.serial and one is self.gradient  # nothing is combined
            for key, known in one.options().items():
                needless = alone or (known.axis and getattr(self, known.axis) is None)
                settled = one is Lengths and LETTERS[key] not in self.given
                if not (needless or settled or key in self.preset):
                    found[key] = known
        return found

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse options that the strategy does not have, and values that cannot be meant."""
        mine, every = self.options(), options()
        for key, value in given.items():
            if key not in every:
                raise UserError(f"no option {key!r}: there are {listed(every)}")
            if key not in mine:
                having = [row.name for row in STRATEGIES.values() if key in row.options()]
                raise misplaced(every[key].flag, value, self.name, having)

    def choose(self, given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> Methods:
        """Return the methods with their options: what is given, else the recipe's, else defaults.

        Raises
        ------
        UserError
            For an option that the strategy does not have, or a value that cannot be meant.
        """
        self.check(given)
        values = {**(recipe or {}), **self.preset, **given}
        block = None if self.block is None else self.block.of(values)
        return Methods(self.partition.of(values), self.gradient.of(values), block)

    def example(self, method: Method, models: int, steps: int) -> dict[str, Any]:
        """Return `Method.example`, in which what the name settles stays as it is."""
        settled = {
            one.field: one.value(self.preset[key])
            for key, one in method.options().items()
            if key in self.preset
        }
        example = method.example(models, steps)
        return {field: settled.get(field, value) for field, value in example.items()}

    def grid(self, world: int, given: Mapping[str, Any] | None = None) -> Grid:
        """Return the grid that this strategy cuts a world of n ranks into.

        Raises
        ------
        UserError
            If a length is given that the strategy does not have, one that it needs is missing,
            or a group size does not divide.
        """
        given = given or {}
        if self.serial and world != 1:
            rows = listed(row.name for row in STRATEGIES.values() if not row.serial)
            raise UserError(
                f"strategy {self.name} runs on one rank, not {world}: use -n 1, or another "
                f"strategy ({rows})"
            )
        self.check({key: given[key] for key in Lengths.options() if key in given})
        lengths: Lengths = Lengths.of(given)
        for key, known in Lengths.options().items():
            if getattr(lengths, key) is None and LETTERS[key] in self.given:
                raise UserError(
                    f"strategy {self.name} needs {known.flag} {LETTERS[key]}, {known.meaning}"
                )
        p_length, g_length, _ = self.lengths.split()
        p = {"1": 1, "n": world, "P": lengths.partition}[p_length]
        g = {"1": 1, "n": None, "G": lengths.gtc_group}[g_length]
        assert p is not None
        return Grid.cut(world, p, g)


# fmt: off
ROWS = (
    #         name            p g b    partition gradient  block settled by the name
    Strategy("serial",        "1 1 1", Whole,   Exact,     None, {},
             "one rank; the meaning of every other row", usual=True),
    Strategy("ddp",           "1 n 1", Whole,   Exact,     None, {},
             "every rank a replica; all-reduce the gradient", usual=True),
    Strategy("zero1",         "n 1 1", Sharded, Exact,     None, {"zero_stage": 1},
             "optimizer state sharded over all ranks"),
    Strategy("zero2",         "n 1 1", Sharded, Exact,     None, {"zero_stage": 2},
             "optimizer state and gradients sharded"),
    Strategy("zero3",         "n 1 1", Sharded, Exact,     None, {"zero_stage": 3},
             "parameters too, gathered unit by unit"),
    Strategy("mics",          "P n 1", Sharded, Exact,     None, {},
             "sharded in groups, replicated between"),
    Strategy("gtc",           "1 n 1", Whole,   Threshold, None, {},
             "gradients as messages of +-tau", usual=True),
    Strategy("onebit",        "1 n 1", Whole,   OneBit,    None, {},
             "gradients as one bit per value"),
    Strategy("bmuf",          "1 1 n", Whole,   Exact,     Bmuf, {},
             "local training, models filtered every block", usual=True),
    Strategy("gtc-bmuf",      "1 G n", Whole,   Threshold, Bmuf, {},
             "GTC inside groups, BMUF between them"),
    Strategy("mics-gtc",      "P n 1", Sharded, Threshold, None, {"zero_stage": 3},
             "GTC between sharded workers"),
    Strategy("mics-bmuf",     "P 1 n", Sharded, Exact,     Bmuf, {"zero_stage": 3},
             "BMUF between sharded workers"),
    Strategy("mics-gtc-bmuf", "P G n", Sharded, Threshold, Bmuf, {"zero_stage": 3},
             "all three axes"),
    Strategy("topk",          "1 n 1", Whole,   TopK,      None, {},
             "gradients as the largest values of every chunk"),
    Strategy("topk-bmuf",     "1 G n", Whole,   TopK,      Bmuf, {},
             "top-k inside groups, BMUF between them"),
    Strategy("mics-topk",     "P n 1", Sharded, TopK,      None, {"zero_stage": 3},
             "top-k between sharded workers"),
    Strategy("mics-topk-bmuf", "P G n", Sharded, TopK,     Bmuf, {"zero_stage": 3},
             "top-k on all three axes"),
    Strategy("diloco",        "1 1 n", Whole,   Exact,     DiLoCo, {},
             "local training, an outer optimizer every block"),
    Strategy("mics-diloco",   "P 1 n", Sharded, Exact,     DiLoCo, {"zero_stage": 3},
             "DiLoCo between sharded workers"),
    Strategy("local-sgd",     "1 1 n", Whole,   Exact,     DiLoCo,
             {"outer_lr": 1.0, "outer_momentum": 0.0},
             "local training, models averaged every block"),
)
# fmt: on

STRATEGIES: dict[str, Strategy] = {row.name: row for row in ROWS}


def strategy(name: str) -> Strategy:
    """Return the row of this name, or raise a `UserError` that lists the names."""
    if name not in STRATEGIES:
        raise UserError(f"no strategy {name!r}: choose one of {listed(STRATEGIES)}")
    return STRATEGIES[name]


def methods() -> list[type[Options]]:
    """Return the classes of options of all rows, each once, in order of their first row."""
    return list(dict.fromkeys(one for row in STRATEGIES.values() for one in row.methods()))


def options() -> dict[str, Option]:
    """Return every option of every row by key; methods that share a key declare it alike."""
    found: dict[str, Option] = {}
    for one in methods():
        for key, known in one.options().items():
            assert key not in found or found[key] == known, f"{key} is declared twice"
            found[key] = known
    return found


def grid_options() -> dict[str, Option]:
    """Return the options by which a run is cut, by key: with exact sums they change no bits."""
    cutting = [one for one in methods() if one is Lengths or issubclass(one, PartitionMethod)]
    return {key: known for one in cutting for key, known in one.options().items()}


def simplest(world: int, given: Mapping[str, Any] | None = None) -> str:
    """Return the first row, for so many ranks, that has just the lengths that are given.

    >>> simplest(1), simplest(8), simplest(8, {"partition": 2}), simplest(8, {"gtc_group": 2})
    ('serial', 'ddp', 'mics', 'gtc-bmuf')
    """
    letters = {letter for key, letter in LETTERS.items() if key in (given or {})}
    alone = world == 1 and not letters
    return next(
        row.name for row in STRATEGIES.values() if row.serial == alone and row.given == letters
    )
