"""``--trace FILE`` and ``--trace-steps A:B``, for the commands that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import MOST, filename, span
from refimpl.support.errors import require
from refimpl.support.files import check_file
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator

Asked = tuple[Path, tuple[int, int]]


def add(command: Any, each: str = "") -> None:
    """Declare them; ``each``: of what there is a file for each."""
    what = "draw when all ranks did what, for Perfetto" + (each and f"; a file for each {each}")
    command.add_argument("--trace", type=filename, metavar="FILE", help=what)
    command.add_argument(
        "--trace-steps", type=span, metavar="A:B", help="only of these steps (default: all)"
    )


def asked(args: Any, comm: Communicator, first: int = 1) -> Asked | None:
    """Return the file and the steps, by default from ``first`` on; None if none was given.

    Collective.  Raises `UserError` if the file could not be written.
    """
    require(args.trace is not None or args.trace_steps is None, "--trace-steps needs --trace FILE")
    with together(comm):
        if args.trace and comm.rank == 0:
            check_file("--trace", args.trace)
    return (Path(args.trace), args.trace_steps or (first, MOST)) if args.trace else None
