"""``refimpl timeline TRACE``: who did what when in steps of a traced run, without MPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename, span
from refimpl.cli.base import say
from refimpl.cli.pictures import SVG_HELP, wrote


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "timeline", help="tell or draw when ranks did what in steps of a trace (needs no MPI)"
    )
    command.add_argument(
        "traces", type=filename, metavar="TRACE", nargs="+", help="files of train --trace"
    )
    command.add_argument(
        "--steps",
        "--step",
        type=span,
        metavar="A:B",
        help="which, or N for one of them (default: the middle one of each)",
    )
    command.add_argument("--svg", type=filename, metavar="FILE", help=SVG_HELP)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the figures, or draw."""
    from refimpl.run import timeline

    lines = [timeline.read(Path(path), args.steps) for path in args.traces]
    if args.svg:
        return wrote(args.svg, lambda: timeline.draw(lines))
    say(timeline.told(lines))
    return 0
