"""The command line: one file per command, errors in one place.

A command is a module with ``add(commands)``, which declares its arguments, and ``run(args)``,
which returns the exit code.  Commands that train or measure call `base.world` for their
communicator; the others never start MPI.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from refimpl import __version__
from refimpl.cli import endings
from refimpl.cli.base import Parser
from refimpl.support.errors import UserError

COMMANDS = (
    *("train", "compare", "evaluate", "decode", "report"),
    *("topology", "explain", "plan", "bench", "golden", "data"),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = Parser(prog="refimpl", description="MiCS, GTC and BMUF in NumPy and MPI.")
    top.add_argument("--version", action="version", version=f"refimpl {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"refimpl.cli.{name}").add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; how it ends otherwise is in `endings`."""
    try:
        args = parser().parse_args(argv)
        return args.run(args)
    except UserError as error:
        return endings.refuse(str(error))
    except KeyboardInterrupt:
        return endings.interrupted()
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        return endings.abort()
