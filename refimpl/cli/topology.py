"""``refimpl topology``: draw the rank grid and fill in the formulas, without MPI."""

from __future__ import annotations

from typing import Any

from refimpl.cli.arguments import positive
from refimpl.support.errors import UserError


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("topology", help="draw the rank grid (needs no MPI)")
    command.add_argument("-n", type=positive, required=True, metavar="RANKS", help="world size")
    command.add_argument("--partition", type=positive, default=1, metavar="P", help="shards")
    command.add_argument(
        "--gtc-group", type=positive, metavar="G", help="workers in a GTC group (default: all)"
    )
    command.add_argument(
        "--ranks-per-node", type=positive, metavar="K", help="ranks of a node (default: one node)"
    )
    numbers = command.add_argument_group("volumes and memory of one training step")
    numbers.add_argument("--parameters", type=positive, metavar="N", help="of the model")
    numbers.add_argument(
        "--zero-stage", type=int, choices=(0, 1, 2, 3), help="default: 3 if there are shards"
    )
    numbers.add_argument("--microsteps", type=positive, metavar="S", help="default: 1")
    numbers.add_argument("--collectives", metavar="NAME", help="default: ring")
    numbers.add_argument("--sync", choices=("two-hop", "every-microstep"))
    numbers.add_argument("--reduction", choices=("float", "exact"))
    numbers.add_argument("--optimizer", metavar="NAME", help="default: momentum")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the drawing; with ``--parameters`` the formulas and their numbers, too."""
    from refimpl.cli import say
    from refimpl.world.topology import Grid, Nodes, drawing

    grid = Grid.cut(args.n, args.partition, args.gtc_group)
    nodes = Nodes.of(args.n, args.ranks_per_node)
    text = drawing(grid, nodes)
    if args.parameters is not None:
        text += "\n\n" + formulas(args, grid, nodes)
    else:
        names = "zero_stage", "microsteps", "collectives", "sync", "reduction", "optimizer"
        for name in names:
            if getattr(args, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} {getattr(args, name)} needs --parameters N, too")
    say(text)
    return 0


def formulas(args: Any, grid: Any, nodes: Any) -> str:
    """Return the formulas, filled in."""
    from refimpl import optim
    from refimpl.methods.formulas import Given, table

    stage = args.zero_stage
    if stage is None:
        stage = 3 if grid.partition > 1 else 0
    given = Given(
        args.parameters,
        stage,
        microsteps=args.microsteps or 1,
        collectives=args.collectives or "ring",
        every_microstep=args.sync == "every-microstep",
        exact=args.reduction == "exact",
        states=len(optim.make(args.optimizer or "momentum").states),
    )
    return table(grid, nodes, given)
