"""``refimpl explain NAME -p P``: print how something works, or draw it, without MPI."""

from __future__ import annotations

from collections.abc import Callable
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
    from refimpl.collectives import explain
    from refimpl.methods.protocol import Method
    from refimpl.methods.strategies import methods

    shown = {one.name: one.shown for one in methods() if issubclass(one, Method) and one.shown}
    how = args.name, args.p or 4, args.k
    text: Callable[[], str] = partial(explain.explain, *how)
    picture: Callable[[], str] = partial(explain.picture, *how)
    if args.name in shown:
        alone = args.p is None and args.k is None
        require(alone, f"{args.name} shows one rank: leave -p and -k out")
        text, picture = shown[args.name]
    if args.svg:
        return wrote(args.svg, picture)
    say(text())
    return 0
