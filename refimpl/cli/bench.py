"""``refimpl bench``: the collectives beside MPI's own, links, GTC, or a training step."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from refimpl.cli import tracing
from refimpl.cli.arguments import between, filename, links, ranks
from refimpl.cli.base import say, world


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("bench", help="time collectives, links, GTC, a training step")
    command.add_argument(
        "what",
        nargs="?",
        default="collectives",
        choices=sorted(KINDS),
        help="default: %(default)s",
    )
    command.add_argument("--collectives", metavar="NAME", help="for step (default: ring)")
    command.add_argument(
        "--links", type=links, metavar="FILE", help="what auto chooses by (default: measured)"
    )
    command.add_argument("--repeats", type=between(1, 10**6), metavar="N", help="rounds of it")
    command.add_argument("--ranks-per-node", type=ranks, metavar="K", help="virtual nodes")
    command.add_argument(
        "--json", type=filename, metavar="FILE", help="also write the figures to a file"
    )
    tracing.add(command)
    command.set_defaults(run=run)


def _collectives(comm: Any, args: Any) -> tuple[Any, str]:
    from refimpl.run.bench import collectives

    rows = collectives.measure(comm, **_given(repeats=args.repeats, links=_links(comm, args)))
    return rows, collectives.table(rows)


def _links(comm: Any, args: Any) -> Any:
    from refimpl.collectives.cost import Links
    from refimpl.run.bench import links

    return Links.of(args.links, "--links") if args.links else links.measure(comm)


def _measured(comm: Any, args: Any) -> tuple[Any, str]:
    from refimpl.run.bench import links

    found = links.measure(comm, **_given(repeats=args.repeats))
    return found.plain(), links.table(found)


def _step(comm: Any, args: Any) -> tuple[Any, str]:
    from refimpl.run.bench import step

    options = _given(repeats=args.repeats)
    result = step.measure(comm, collective=args.collectives or "ring", **options)
    return result, step.table(result)


def _gtc(comm: Any, args: Any) -> tuple[Any, str]:
    from refimpl.run.bench import gtc
    from refimpl.run.modelfile import ModelFile
    from refimpl.world.agree import on_first_rank

    result = on_first_rank(comm.mpi, lambda: gtc.measure(**_given(repeats=args.repeats)))
    text = gtc.table(result)
    if comm.size > 1 and comm.size % 2 == 0:
        result["traffic"] = gtc.traffic(comm, ModelFile.open("acoustic_mlp", comm))
        text += "\n" + gtc.traffic_table(result["traffic"])
    return result, text


KINDS = {"collectives": _collectives, "links": _measured, "step": _step, "gtc": _gtc}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def run(args: Any) -> int:
    """Measure and print the table."""
    from refimpl.support.errors import require
    from refimpl.support.files import check_file, write_json
    from refimpl.world.agree import together
    from refimpl.world.trace import Trace

    require(
        args.what == "step" or not args.collectives,
        f"--collectives {args.collectives} is for `bench step`: {args.what} has its own",
    )
    require(
        args.what == "collectives" or not args.links,
        f"--links is for `bench` of the collectives: leave it out of `bench {args.what}`",
    )
    args.links = None if args.links == "measure" else args.links
    comm = world(args.ranks_per_node)
    with together(comm):
        if args.json and comm.rank == 0:
            check_file("--json", args.json)
    trace = tracing.asked(args, comm, first=0)  # most of it is outside of any step
    with Trace(comm, *trace) if trace else nullcontext():
        result, text = KINDS[args.what](comm, args)
    say(text)
    with together(comm):
        if args.json and comm.rank == 0:
            write_json(Path(args.json), result)
    return 0
