"""``refimpl report RUN...``: one picture of one or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename
from refimpl.cli.base import first_rank, say


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("report", help="draw loss, FER and traffic of runs")
    command.add_argument(
        "run_folders", type=filename, metavar="RUN", nargs="+", help="folders of finished runs"
    )
    command.add_argument(
        "--out",
        type=filename,
        default="report.png",
        metavar="FILE.png",
        help="default: %(default)s",
    )
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Write the picture, on the first rank only."""
    from refimpl.run import picture
    from refimpl.run.folder import RunFolder
    from refimpl.support.errors import UserError
    from refimpl.support.files import check_file

    check_file("--out", args.out, ".png")
    picture.require_matplotlib()
    folders = [RunFolder.finished(Path(path)) for path in args.run_folders]
    if first_rank():
        try:
            picture.runs(folders, Path(args.out))
        except OSError as error:
            raise UserError(f"cannot write {args.out}: {error.strerror}") from error
    say(f"wrote {args.out}")
    return 0
