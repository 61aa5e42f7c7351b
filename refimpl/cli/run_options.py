"""The options that decide what a run computes; `train` and `compare` share them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from refimpl.cli.arguments import (
    clip,
    filename,
    links,
    positive,
    positive_number,
    ranks,
    setting,
    whole,
)
from refimpl.cli.base import Parser
from refimpl.methods import strategies
from refimpl.methods.options import Option
from refimpl.methods.strategies import Lengths
from refimpl.run.config import Run, override
from refimpl.run.modelfile import ModelFile
from refimpl.support.errors import UserError

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

LINKS_HELP = "what auto chooses by: a file of `bench links --json`, or measure"
MAP_HELP = "fill the grid by-rank (default), or by-node: ranks of a node are neighbours"


def add_options(command: Any, resumes: bool = False) -> None:
    """Declare them, in groups as a person looks for them; who resumes a run needs no model."""
    model = command.add_argument(
        "model", type=filename, metavar="MODEL", help="a shipped model's name, or a .py file"
    )
    if resumes:
        model.nargs = "?"
    command.add_argument(
        "--data",
        type=filename,
        metavar="DIR",
        help="training data (default: built-in, made on first use)",
    )
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the model file's build(), for example hidden=1024",
    )

    how = command.add_argument_group("how the ranks work together")
    how.add_argument("--collectives", metavar="NAME", help="default: ring")
    how.add_argument("--links", type=links, metavar="FILE", help=LINKS_HELP)
    how.add_argument("--reduction", metavar="KIND", help="float (default) or exact")
    how.add_argument("--ranks-per-node", type=ranks, metavar="K", help="draw virtual nodes")
    how.add_argument("--map", metavar="ORDER", help=MAP_HELP)
    add_method_options(command, how)

    what = command.add_argument_group("the recipe (default: the model's own)")
    what.add_argument("--batch", type=positive, metavar="B", help="examples per rank, micro-step")
    what.add_argument("--microsteps", type=positive, metavar="S", help="micro-steps per step")
    what.add_argument("--epochs", type=positive, metavar="N")
    what.add_argument("--steps", type=positive, metavar="N", help="stop after so many steps")
    what.add_argument("--optimizer", metavar="NAME")
    what.add_argument("--lr", type=positive_number, metavar="X", help="learning rate")
    what.add_argument("--momentum", type=float, metavar="X")
    what.add_argument("--weight-decay", type=float, metavar="X")
    what.add_argument("--clip", type=clip, metavar="X", help="global gradient norm; 0: none")
    what.add_argument("--schedule", metavar="NAME", help="how the learning rate falls")
    what.add_argument("--warmup", type=float, metavar="E", help="epochs to the full rate")
    what.add_argument("--decay", type=float, metavar="X", help="the schedule's factor")
    what.add_argument("--seed", type=whole, metavar="N", help="default: 0")
    what.add_argument("--dtype", metavar="TYPE", help="float32 (default) or float64")


def add_method_options(command: Any, lengths: Any) -> None:
    """Declare the options of all methods, a group for each; the axes' lengths in their own."""
    seen: set[str] = set()
    for one in strategies.methods():
        title = getattr(one, "title", "")
        group = lengths if one is Lengths else command.add_argument_group(title)
        for known in one.options().values():
            if known.key not in seen:
                seen.add(known.key)
                _add(group, known)


def _add(group: Any, known: Option) -> None:
    """Declare an option; not given is None."""
    if known.kind is bool and not known.choices:
        group.add_argument(known.flag, action="store_const", const=True, help=known.meaning)
        return

    def parse(text: str) -> Any:
        try:
            return known.parse(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    group.add_argument(known.flag, type=parse, metavar=known.metavar, help=known.meaning)


def parsed_over(args: Any, words: list[str], what: str) -> Any:
    """Return a copy of the parsed options in which those in ``words`` have new values."""
    parser = Parser(prog=what, usage=argparse.SUPPRESS, add_help=False)
    add_options(parser)
    return parser.parse_args([args.model, *words], argparse.Namespace(**vars(args)))


def measured(args: Any, comm: Communicator) -> None:
    """Put numbers in the place of ``--links measure``, the same on all ranks.  Collective."""
    if args.links == "measure":
        from refimpl.run.bench.links import measure

        args.links = measure(comm).plain()


RECIPE_OPTIONS = (
    "batch",
    "microsteps",
    "epochs",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "clip",
    "schedule",
    "warmup",
    "decay",
)


def methods_of(args: Any) -> dict[str, Any]:
    """Return what was given of the methods' options, by key."""
    given = {key: getattr(args, key) for key in strategies.options()}
    return {key: value for key, value in given.items() if value is not None}


def given(args: Any) -> dict[str, Any]:
    """Return the fields of a `Run` that were given, and of its recipe under ``recipe``."""
    named = ("model", "data", "strategy", "collectives", "reduction", "dtype", "steps", "seed")
    fields = {n: getattr(args, n, None) for n in (*named, "links", "ranks_per_node", "map")}
    found = {name: value for name, value in fields.items() if value is not None}
    recipe = {name: getattr(args, name) for name in RECIPE_OPTIONS}
    found["recipe"] = {name: value for name, value in recipe.items() if value is not None}
    if args.set:
        found["options"] = dict(args.set)
    return found | {"methods": methods_of(args)}


def run_of(args: Any, model: ModelFile, strategy: str, **changes: Any) -> Run:
    """Return the run that the options ask for, with some of its fields changed."""
    fields = given(args)
    recipe = override(model.recipe(), fields["recipe"])
    return Run(**fields | {"recipe": recipe, "strategy": strategy} | changes)
