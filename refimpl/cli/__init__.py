"""The command line: one file per command, errors in one place.

A command is a module with ``add(commands)``, which declares its arguments, and ``run(args)``,
which returns the exit code.  Commands that train or measure call `base.world` for their
communicator; the others never start MPI.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module

from refimpl import __version__
from refimpl.cli import endings
from refimpl.cli.base import Parser, launched
from refimpl.cli.listing import EXAMPLES, Listing
from refimpl.support.errors import UserError, failure
from refimpl.world.agree import same, together

COMMANDS = tuple(EXAMPLES)


def parser(first: str | None = None, *, twice: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands; of one, if ``first`` is a command's name."""
    top = Parser(
        prog="refimpl",
        description="MiCS, GTC and BMUF in NumPy and MPI.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"refimpl {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, help="one of those below")
    listing = Listing(commands, twice)
    for name in [first] if first in COMMANDS else COMMANDS:
        import_module(f"refimpl.cli.{name}").add(listing)
    if first not in COMMANDS:
        top.epilog = listing.text()
    return top


def completion() -> argparse.ArgumentParser:
    """Return the parser that ``shtab refimpl.cli.completion`` makes a shell's completion of."""
    return parser(twice=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; how it ends otherwise is in `endings`."""
    try:
        endings.occupy()
        with endings.staying():
            args = told(argv)
            return 0 if args is None else args.run(args)
    except UserError as error:
        return endings.refuse(str(error), error.code)
    except KeyboardInterrupt:
        return endings.interrupted()
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`): nothing is left to say.
        return endings.UNHEARD
    except (MemoryError, OSError) as error:
        return endings.refuse(failure(error))
    except BaseException:
        return endings.abort()


def told(argv: Sequence[str] | None) -> argparse.Namespace | None:
    """Return what the command line says, the same on all ranks; None if it asked for a text."""
    everyone, args = launched(), None
    argv = sys.argv[1:] if argv is None else argv
    with together(everyone) if everyone else nullcontext(), suppress(SystemExit):
        args = parser(*argv[:1]).parse_args(argv)
    if everyone is not None:
        plain = {} if args is None else vars(args)
        command = plain["run"].__module__.rpartition(".")[2] if plain else "--help"
        same(everyone, {"the command": command})
        named = plain.get("named", {}).items()
        same(everyone, {name: plain[key] for key, name in named if key in plain})
    return args
