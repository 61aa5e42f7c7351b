"""``refimpl explain NAME -p P``: print how something works, or draw it, without MPI."""

from __future__ import annotations

from functools import partial
from typing import Any

from refimpl.cli.arguments import filename, positive
from refimpl.cli.base import say
from refimpl.cli.pictures import SVG_HELP, wrote
from refimpl.support.errors import require


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "explain", help="print or draw how a collective works, or GTC (needs no MPI)"
    )
    command.add_argument(
        "name", metavar="NAME", help="for example ring, hierarchical-allgather, gtc"
    )
    command.add_argument("-p", type=positive, metavar="P", help="ranks (default: 4)")
    command.add_argument("-k", type=positive, metavar="K", help="ranks of a node")
    command.add_argument("--svg", type=filename, metavar="FILE", help=SVG_HELP)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the schedule, or draw it."""
    if args.name == "gtc":
        from refimpl.methods.gradient.gtc import explain as gtc

        require(args.p is None and args.k is None, "gtc shows one rank: leave -p and -k out")
        text, picture = gtc.explain, gtc.picture
    else:
        from refimpl.collectives import explain

        how = args.name, args.p or 4, args.k
        text, picture = partial(explain.explain, *how), partial(explain.picture, *how)
    if args.svg:
        return wrote(args.svg, picture)
    say(text())
    return 0
