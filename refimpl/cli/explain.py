"""``refimpl explain NAME -p P``: print a collective's schedule, or draw it, without MPI."""

from __future__ import annotations

from typing import Any

from refimpl.cli.arguments import filename, positive
from refimpl.cli.base import say
from refimpl.cli.pictures import SVG_HELP, wrote


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("explain", help="print how a collective works (needs no MPI)")
    command.add_argument("name", metavar="NAME", help="for example ring, hierarchical-allgather")
    command.add_argument("-p", type=positive, default=4, metavar="P", help="ranks (default: 4)")
    command.add_argument("-k", type=positive, metavar="K", help="ranks of a node")
    command.add_argument("--svg", type=filename, metavar="FILE", help=SVG_HELP)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the schedule, or draw it."""
    from refimpl.collectives.explain import explain, picture

    if args.svg:
        return wrote(args.svg, lambda: picture(args.name, args.p, args.k))
    say(explain(args.name, args.p, args.k))
    return 0
