"""``refimpl compare MODEL --strategies a,b,c``: the same frames for all, one table."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.cli import tracing
from refimpl.cli.arguments import between, filename, positive
from refimpl.cli.base import add_quiet, say, teller, world
from refimpl.cli.run_options import add_options, measured, parsed_over, run_of
from refimpl.methods.strategies import STRATEGIES

if TYPE_CHECKING:
    from refimpl.run.config import Run
    from refimpl.run.modelfile import ModelFile

DEFAULT = ",".join(row.name for row in STRATEGIES.values() if row.usual)


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("compare", help="train several strategies side by side")
    add_options(command)
    command.add_argument(
        "--strategies", default=DEFAULT, metavar="NAMES", help=f"default: {DEFAULT}"
    )
    command.add_argument(
        "--global-batch",
        type=positive,
        metavar="B",
        help="examples of a micro-step on all ranks together, divided among them (default: the "
        "recipe's batch; with --batch each rank takes that many, and serial alone takes fewer)",
    )
    command.add_argument(
        "--for",
        dest="alone",
        action="append",
        default=[],
        metavar="'STRATEGY OPTIONS'",
        help="options for one strategy alone, for example --for 'gtc --lr 0.5 --tau 8'",
    )
    command.add_argument(
        "--seeds", type=between(1, 1000), default=1, metavar="N", help="runs of each (default: 1)"
    )
    command.add_argument(
        "--json", type=filename, metavar="FILE", help="write table and summaries to a file"
    )
    command.add_argument(
        "--plot", type=filename, metavar="FILE", help="draw it, .png or .svg (extra [plot])"
    )
    add_quiet(command)
    tracing.add(command, each="run, FILE-STRATEGY-SEED")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Train them all and print the table; the file is brought up to date after every run."""
    from refimpl.run import compare, picture
    from refimpl.run.modelfile import ModelFile
    from refimpl.support.files import check_file, write_json
    from refimpl.tasks import table as tasks
    from refimpl.world.agree import together

    comm = world(args.ranks_per_node, quiet=args.quiet)
    measured(args, comm)
    model = ModelFile.open(args.model, comm)
    with together(comm):
        if args.json and comm.rank == 0:
            check_file("--json", args.json)
        if args.plot and comm.rank == 0:
            check_file("--plot", args.plot, ".png", ".svg")
            picture.require_matplotlib()

    def keep(result: dict[str, Any]) -> None:
        with together(comm):
            if args.json and comm.rank == 0:
                write_json(Path(args.json), result)

    with together(comm):
        planned = runs(args, model, comm.size)
    trace = tracing.asked(args, comm)
    result = compare.compare(comm, model, planned, args.seeds, teller(args.quiet), keep, trace)
    words = tasks.words(run.recipe.task for run in planned.values())
    say(compare.table_text(result, words))
    with together(comm):
        if args.plot and comm.rank == 0:
            picture.comparison(result, words, Path(args.plot))
    return 0


def runs(args: Any, model: ModelFile, world: int) -> dict[str, Run]:
    """Return what each strategy is to do: the options for all, and those for it alone."""
    from refimpl.run.compare import check_same, fitted, share, shared
    from refimpl.support.errors import UserError, listed

    names = [name.strip() for name in args.strategies.split(",") if name.strip()]
    if len(set(names)) < len(names) or not names:
        raise UserError(
            f"--strategies '{args.strategies}': name strategies, each once, like {DEFAULT}"
        )
    alone: dict[str, list[str]] = {}
    for text in args.alone:
        try:
            name, *options = shlex.split(text) or [""]
        except ValueError as error:
            raise UserError(f"--for '{text}': {error}") from error
        if name not in names:
            raise UserError(f"--for '{text}': begin with one of the strategies, {listed(names)}")
        alone.setdefault(name, []).extend(options)
    if args.batch and args.global_batch:
        raise UserError(
            f"--batch {args.batch} is for each rank and --global-batch {args.global_batch} for "
            "all together: give one of them"
        )
    base = run_of(args, model, names[0])
    if not args.batch:
        base = replace(
            base, recipe=replace(base.recipe, batch=share(base, args.global_batch, world))
        )
    planned = {}
    for name in names:
        own = parsed_over(args, alone.get(name, []), f"--for '{name} ...'")
        run = run_of(own, model, name)
        check_same(name, run, base)
        only = {key: value for key, value in run.methods.items() if base.methods.get(key) != value}
        run.row.check(only)
        if not own.batch:
            run = shared(run, args.global_batch, world)
        planned[name] = fitted(run, name, run.seed, world, base)
    return planned
