"""``refimpl simulate MODEL``: a step of a run on a cluster that is not here, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename, positive_number, ranks
from refimpl.cli.base import on_first_rank, say
from refimpl.cli.plan import comma, links_of, size
from refimpl.cli.run_options import add_options, methods_of, run_of
from refimpl.support.errors import require

LINK_HELP = "s/message, s/byte (default: those of --links, or assumed)"
AT_ONCE = 1024  # ranks, each of which is a thread


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "simulate", help="take a step on a cluster that is not here, in virtual time (no MPI)"
    )
    add_options(command)
    command.add_argument(
        "--strategy", metavar="NAME", help="default: the simplest with the lengths that are given"
    )
    command.add_argument("-n", type=ranks, required=True, metavar="RANKS", help="world size")
    cluster = command.add_argument_group("the cluster")
    cluster.add_argument(
        "--flops", type=positive_number, required=True, metavar="F", help="a rank's, per second"
    )
    link = comma(size, 2)
    cluster.add_argument("--intra", type=link, metavar="ALPHA,BETA", help=LINK_HELP)
    cluster.add_argument("--inter", type=link, metavar="ALPHA,BETA", help="the same between nodes")
    cluster.add_argument(
        "--scale",
        type=positive_number,
        default=1.0,
        metavar="S",
        help="a parameter stands for so many (default: 1)",
    )
    command.add_argument(
        "--trace", type=filename, metavar="FILE", help="draw when all ranks did what, for Perfetto"
    )
    command.add_argument("--json", action="store_true", help="print plain data")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Simulate and print; what ranks there are leave it to the first."""
    return on_first_rank(lambda: _run(args))


def _run(args: Any) -> int:
    from refimpl.collectives.auto import Auto
    from refimpl.methods.strategies import simplest
    from refimpl.plan import simulate
    from refimpl.plan.model import Cluster
    from refimpl.plan.text import simulated_data, simulated_text
    from refimpl.run.modelfile import ModelFile, find
    from refimpl.support.files import check_file, read_text
    from refimpl.world.topology import Nodes

    require(args.data is None, f"--data {args.data}: inputs are drawn here, leave it out")
    require(args.n <= AT_ONCE, f"-n {args.n}: each rank is a thread here, give {AT_ONCE} at most")
    if args.trace:
        check_file("--trace", args.trace)
    links = links_of(args)._replace(cores=1.0)  # nobody waits for a turn on a core
    lacking = [f"--{name}" for name in ("intra", "inter") if getattr(args, name) is None]
    assumed = [] if args.links else lacking
    if args.collectives != Auto.name:
        args.links = None  # of the run they are what auto chooses by
    path = find(args.model)
    model = ModelFile.parse(path.stem, read_text(path), str(path))
    cluster = Cluster(args.n, args.ranks_per_node or args.n, args.flops, links)
    told = run_of(args, model, args.strategy or simplest(args.n, methods_of(args)))
    found = simulate.simulate(told, model, cluster, args.scale, drawn=bool(args.trace))
    if args.trace:
        simulate.draw(found, Path(args.trace), Nodes.of(args.n, cluster.ranks_per_node).node)
    if args.json:
        say(json.dumps(simulated_data(found, cluster), indent=1))
    else:
        say(simulated_text(found, cluster, assumed))
    return 0
