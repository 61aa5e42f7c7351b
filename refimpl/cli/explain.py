"""``refimpl explain NAME -p P``: print how something works, or draw it, without MPI."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from refimpl.cli.arguments import filename, positive
from refimpl.cli.base import say
from refimpl.cli.pictures import SVG_HELP, wrote
from refimpl.support.errors import listed, require


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "explain", help="print how a collective, a method or a strategy works (needs no MPI)"
    )
    command.add_argument("name", metavar="NAME", help="for example ring, gtc, zero3")
    command.add_argument("-p", type=positive, metavar="P", help="ranks (default: 4)")
    command.add_argument(
        "-k", type=positive, metavar="K", help="ranks of a node, or of a partition group"
    )
    command.add_argument("--svg", type=filename, metavar="FILE", help=SVG_HELP)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the schedule, or draw it."""
    from refimpl.collectives import explain
    from refimpl.methods import explain as strategies
    from refimpl.methods.protocol import Method
    from refimpl.methods.strategies import methods

    name, p, k = args.name, args.p, args.k
    shown = {one.name: one.shown for one in methods() if issubclass(one, Method) and one.shown}
    names = {*explain.NAMES, *shown, *strategies.NAMES}
    require(name in names, f"nothing to explain under {name!r}: choose one of {listed(names)}")
    text: Callable[[], str] = partial(explain.explain, name, p or 4, k)
    picture: Callable[[], str] | None = partial(explain.picture, name, p or 4, k)
    if name in shown and p is None and k is None:
        text, picture = shown[name]
    elif name in strategies.NAMES:
        text, picture = partial(strategies.step, name, p or 4, k), None
    if args.svg:
        require(picture is not None, f"{name} has no picture: leave --svg out")
        assert picture is not None
        return wrote(args.svg, picture)
    say(text())
    return 0
