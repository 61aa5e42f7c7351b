"""``refimpl report RUN...``: one picture of one or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename
from refimpl.cli.base import on_first_rank, say


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("report", help="draw loss, errors, traffic and time of runs")
    command.add_argument(
        "run_folders", type=filename, metavar="RUN", nargs="+", help="folders of finished runs"
    )
    command.add_argument(
        "--out",
        type=filename,
        default="report.png",
        metavar="FILE",
        help="NAME.png or NAME.svg (default: %(default)s)",
    )
    command.add_argument(
        "--trace", type=filename, metavar="FILE", nargs="+", help="traces of steps of these runs"
    )
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Write the picture, on the first rank only."""
    return on_first_rank(lambda: draw(args))


def draw(args: Any) -> int:
    """Write the picture."""
    from refimpl.run import picture, timeline
    from refimpl.run.folder import RunFolder
    from refimpl.support.files import check_file

    check_file("--out", args.out, ".png", ".svg")
    picture.require_matplotlib()
    folders = [RunFolder.finished(Path(path)) for path in args.run_folders]
    traces = [timeline.read(Path(path)) for path in args.trace or ()]
    picture.runs(folders, Path(args.out), traces)
    say(f"wrote {args.out}")
    return 0
