"""``refimpl compare MODEL --strategies a,b,c``: the same frames for all, one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import positive
from refimpl.cli.run_options import add_options, run_of

DEFAULT = "serial,ddp,gtc,bmuf"


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("compare", help="train several strategies side by side")
    add_options(command)
    command.add_argument(
        "--strategies", default=DEFAULT, metavar="NAMES", help=f"default: {DEFAULT}"
    )
    command.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="runs of each (default: 1)"
    )
    command.add_argument("--json", metavar="FILE", help="write table and summaries to a file")
    command.add_argument("--plot", metavar="FILE", help="write a picture (extra [plot])")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Train them all and print the table."""
    from refimpl import compare, picture
    from refimpl.cli import say, world
    from refimpl.errors import UserError, together
    from refimpl.modelfile import ModelFile
    from refimpl.runs import write_whole

    comm = world(args.ranks_per_node)
    model = ModelFile.open(args.model, comm)
    names = [name.strip() for name in args.strategies.split(",") if name.strip()]
    if len(set(names)) < len(names) or not names:
        raise UserError(f"--strategies {args.strategies}: name each strategy once")
    if args.plot:
        with together(comm):
            picture.require_matplotlib()
    base = run_of(args, model, names[0])
    result = compare.compare(comm, model, base, names, args.seeds, say)
    say(compare.table_text(result))
    with together(comm):
        try:
            if args.json and comm.rank == 0:
                write_whole(Path(args.json), (json.dumps(result, indent=2) + "\n").encode())
            if args.plot and comm.rank == 0:
                picture.comparison(result, Path(args.plot))
        except OSError as error:
            raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    return 0
