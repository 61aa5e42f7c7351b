"""``refimpl checkpoint``: list checkpoints, check their sums, write the model in one file."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename, positive
from refimpl.cli.base import on_first_rank, say
from refimpl.state.checkpoint import Checkpoint, parameters, steps
from refimpl.support import text
from refimpl.support.errors import require
from refimpl.support.files import check_file, save_arrays
from refimpl.support.safetensors import save_safetensors


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("checkpoint", help="show, verify or convert checkpoints")
    actions = command.add_subparsers(metavar="ACTION", required=True)
    for name, words in (
        ("show", "list a run's checkpoints, or what is in one"),
        ("verify", "compare every array with its SHA-256"),
        ("convert", "write the whole model, by parameter, to one file"),
        ("ranks", "print the most ranks, fewer than there were, that can go on"),
    ):
        action = actions.add_parser(name, help=words)
        action.add_argument(
            "where",
            type=filename,
            metavar="RUN",
            help="a run's folder, or one of its checkpoints (step-...)",
        )
        action.set_defaults(run=run, action=name)
        if name == "convert":
            action.add_argument(
                "out", type=filename, metavar="FILE", help="a .npz or .safetensors file"
            )
        if name == "ranks":
            action.add_argument("--fewer-than", type=positive, metavar="N")


def run(args: Any) -> int:
    """Do what was asked for, on the first rank."""
    action = {"show": show, "verify": verify, "convert": convert, "ranks": ranks}[args.action]
    return on_first_rank(lambda: action(args))


def found(where: str) -> list[Path]:
    """Return the complete checkpoints at a path: of a run, or the one that it is."""
    from refimpl.run.saving import CHECKPOINTS

    path = Path(where)
    require(path.is_dir(), f"no folder {path}: give a run's folder, or one of its checkpoints")
    if path.name.startswith("step-") and not (path / CHECKPOINTS).is_dir():
        return [path]
    there = [folder for _, folder in steps(path / CHECKPOINTS)]
    require(bool(there), f"{path} has no complete checkpoint: train with --checkpoint-every")
    return there


def show(args: Any) -> int:
    """List the checkpoints of a run, or the leaves of one."""
    paths = found(args.where)
    if paths == [Path(args.where)]:
        say(leaves(Checkpoint(paths[0])))
        return 0
    rows = []
    for path in paths:
        one = Checkpoint(path)
        nbytes = sum(file.stat().st_size for file in path.iterdir())
        rows.append([str(one.step), one.grid.sentence(), text.size(nbytes), str(path)])
    say(text.table(["step", "written by", "size", "folder"], rows))
    return 0


def leaves(one: Checkpoint) -> str:
    """Return what is in a checkpoint as text, a line for each leaf."""
    rows = []
    for name, placement in one.placements().items():
        pieces = [array for (path, _), array in one.arrays.items() if path == name]
        shapes = ["x".join(map(str, array["shape"])) for array in pieces[:4]]
        numbers = " + ".join([*shapes, "..."] if len(pieces) > 4 else shapes)
        rows.append([name, placement, pieces[0]["dtype"] if pieces else "", numbers])
    head = f"step {one.step}: {one.grid.sentence()} ({one.config['strategy']})"
    return f"{head}\n{text.table(['name', 'placement', 'dtype', 'numbers'], rows)}"


def verify(args: Any) -> int:
    """Check all sums of all checkpoints; `UserError` for the first that is wrong."""
    for path in found(args.where):
        nbytes = Checkpoint(path).verify()
        say(f"{path}: whole, {text.size(nbytes)} in arrays")
    return 0


def convert(args: Any) -> int:
    """Write the newest model, that of BMUF filtered, one unit after the other."""
    check_file("FILE", args.out, ".npz", ".safetensors")
    one = Checkpoint(found(args.where)[-1])
    one.verify()
    if args.out.endswith(".npz"):
        save_arrays(Path(args.out), parameters(one))
    else:
        passing = parameters(one)
        first = next(passing)
        forms = {n: (first[1].dtype, shape) for n, (_, _, shape) in one.layout.parameters.items()}
        save_safetensors(Path(args.out), forms, chain([first], passing))
    say(f"{args.out}: the model after step {one.step}")
    return 0


def ranks(args: Any) -> int:
    """Print the most ranks, fewer than wrote the newest checkpoint or than N, that can go on."""
    from refimpl.run.config import Run
    from refimpl.run.resume import most_ranks

    one = Checkpoint(found(args.where)[-1])
    run = Run.from_dict(one.config)
    batches = one.grid.micro_batches(run.recipe.microsteps)
    most = most_ranks(run, one.grid, batches, (args.fewer_than or one.grid.world) - 1)
    require(most is not None, f"{one.folder}: no smaller number of ranks can go on with this run")
    say(str(most))
    return 0
