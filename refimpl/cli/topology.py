"""``refimpl topology``: draw the rank grid and fill in the formulas, without MPI."""

from __future__ import annotations

from typing import Any

from refimpl.cli.arguments import filename, positive, ranks, shapes
from refimpl.cli.base import say
from refimpl.cli.pictures import SVG_HELP, wrote
from refimpl.cli.run_options import MAP_HELP, add_method_options, methods_of
from refimpl.support.errors import UserError, listed, require

# Of no meaning without --parameters; with it, these defaults.
NUMBERS: dict[str, Any] = {
    "microsteps": 1,
    "collectives": "ring",
    "reduction": "float",
    "optimizer": "momentum",
    "density": 0.005,
}


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("topology", help="draw the rank grid (needs no MPI)")
    command.add_argument("-n", type=ranks, required=True, metavar="RANKS", help="world size")
    command.add_argument(
        "--strategy", metavar="NAME", help="default: the simplest with the lengths that are given"
    )
    command.add_argument(
        "--ranks-per-node", type=ranks, metavar="K", help="ranks of a node (default: one node)"
    )
    command.add_argument(
        "--placement",
        choices=("block", "cyclic"),
        default="block",
        help="node after node (default), or dealt out in turn",
    )
    command.add_argument("--map", default="by-rank", metavar="ORDER", help=MAP_HELP)
    command.add_argument("--svg", type=filename, metavar="FILE", help=SVG_HELP)
    numbers = command.add_argument_group("volumes and memory of one training step")
    numbers.add_argument(
        "--parameters",
        type=shapes,
        metavar="N",
        help="of the model: how many, or the shape of each, such as 440x1024,1024",
    )
    numbers.add_argument("--microsteps", type=positive, metavar="S", help="default: 1")
    numbers.add_argument("--collectives", metavar="NAME", help="default: ring")
    numbers.add_argument("--reduction", choices=("float", "exact"))
    numbers.add_argument("--optimizer", metavar="NAME", help="default: momentum")
    numbers.add_argument(
        "--density", type=float, metavar="X", help="of messages that depend on it: default 0.005"
    )
    add_method_options(command, command.add_argument_group("lengths of the axes"))
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the drawing; with ``--parameters`` the formulas and their numbers, too."""
    from refimpl.methods import strategies
    from refimpl.methods.strategies import strategy
    from refimpl.run.config import MAPS
    from refimpl.run.report import scattered_text
    from refimpl.world.drawing import drawing, picture
    from refimpl.world.topology import Nodes

    given = methods_of(args)
    row = strategy(args.strategy or strategies.simplest(args.n, given))
    row.check(given)
    grid, nodes = row.grid(args.n, given), Nodes.of(args.n, args.ranks_per_node)
    require(args.map in MAPS, f"--map {args.map}: choose one of {listed(MAPS)}")
    if args.placement == "cyclic":
        require(args.ranks_per_node is not None, "--placement cyclic needs --ranks-per-node K")
        nodes = Nodes.dealt(args.n, args.ranks_per_node)
    nodes = nodes.ordered() if args.map == "by-node" else nodes
    if args.svg:
        require(args.parameters is None, "--svg draws the grid alone: leave --parameters out")
        return wrote(args.svg, lambda: picture(grid, nodes))
    text = drawing(grid, nodes)
    if warning := scattered_text(grid, nodes, {}):
        text += f"\n\nwarning: {warning}"
    if args.parameters is None:
        for name in NUMBERS:
            if getattr(args, name) is not None:
                raise UserError(f"--{name} {getattr(args, name)} needs --parameters N, too")
    else:
        text += "\n\n" + formulas(args, row, given, grid, nodes)
    say(text)
    return 0


def formulas(args: Any, row: Any, given: Any, grid: Any, nodes: Any) -> str:
    """Return the formulas, filled in."""
    from refimpl import collectives, optim
    from refimpl.methods import traffic
    from refimpl.methods.calls import Setting
    from refimpl.methods.formulas import table
    from refimpl.nn.flat import unit_of

    numbers = {
        name: default if getattr(args, name) is None else getattr(args, name)
        for name, default in NUMBERS.items()
    }
    if not 0 < numbers["density"] <= 1:
        raise UserError(f"--density {args.density}: must be above 0 and at most 1")
    methods = row.choose(given)
    require(
        not methods.gradient.by_columns or max(map(len, args.parameters)) > 1,
        f"{row.name} with these options sends by the shapes of parameters: give them, such as "
        "--parameters 440x1024,1024",
    )
    setting = Setting(
        grid,
        nodes,
        unit_of(args.parameters, grid.partition),
        collectives.get(numbers["collectives"]),
        microsteps=numbers["microsteps"],
        exact=numbers["reduction"] == "exact",
        every_microstep=methods.gradient.every_microstep,
    )
    why = traffic.unused(methods, setting) if args.collectives else None
    require(not why, why or "")
    states = len(optim.make(numbers["optimizer"]).states)
    return table(methods, setting, states, numbers["density"])
