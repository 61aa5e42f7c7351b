"""The command line: one file per command, errors in one place.

A command is a module with ``add(commands)``, which declares its arguments, and ``run(args)``,
which returns the exit code.  Commands that train or measure call `world` for their communicator;
the others never start MPI.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from refimpl import __version__
from refimpl.support.errors import UserError
from refimpl.world import agree

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

# How long a rank with a user's error waits for the others to report the same one: so many seconds,
# and some for every rank, since 128 ranks on two cores are seconds apart.
GRACE, GRACE_PER_RANK = 2.0, 0.1

# How long the launcher has to pass on what a rank said before it is told to end the job.
HEARD = 0.2

# Where launchers tell a process its rank before MPI is started.
RANK_VARIABLES = (
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "SLURM_PROCID",
    "PALS_RANKID",
    "ALPS_APP_PE",
)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports mistakes as every other mistake: one line, once."""

    def error(self, message: str) -> None:
        where = f" (see: {self.prog} --help)" if self.add_help else f" in {self.prog}"
        raise UserError(message + where)

    def print_help(self, file: Any = None) -> None:
        if first_rank():
            super().print_help(file)


def first_rank() -> bool:
    """Return whether this process should speak for the job; starts no MPI.

    In a world of one the launcher knows better: it may have started many of them.
    """
    mpi = _mpi()
    if mpi is not None:
        return mpi.COMM_WORLD.rank == 0
    ranks = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    return not ranks or ranks[0] == "0"


def world(ranks_per_node: int | None = None) -> Communicator:
    """Return the communicator of all ranks; starts MPI.

    Raises
    ------
    UserError
        If run_mpi.sh asked for another number of ranks (it says so in REFIMPL_RANKS): a launcher
        of another MPI starts that many worlds of one rank, and each would train alone.
    """
    from mpi4py import MPI

    from refimpl.world.communicator import Communicator

    asked, found = os.environ.get("REFIMPL_RANKS"), MPI.COMM_WORLD.size
    if asked and asked != str(found):
        raise UserError(
            f"{asked} ranks were asked for (REFIMPL_RANKS) but this world has {found}: the "
            f"launcher does not know mpi4py's MPI, {MPI.get_vendor()[0]}; {_cure(MPI)}"
        )

    return Communicator(MPI.COMM_WORLD, ranks_per_node)


def _cure(mpi: Any) -> str:
    """Return how this launcher is told of the MPI that mpi4py has."""
    if "SLURM_STEP_ID" not in os.environ:
        return "set MPIEXEC to the launcher of that MPI"
    if mpi.get_vendor()[0] == "Intel MPI":
        return "set I_MPI_PMI_LIBRARY to SLURM's libpmi2.so, or MPIEXEC to Intel's mpiexec"
    return "set SLURM_MPI_TYPE to one of `srun --mpi=list`, or MPIEXEC to that MPI's mpiexec"


def say(text: str) -> None:
    """Print on the first rank only."""
    if first_rank():
        print(text, flush=True)


def on_first_rank(work: Callable[[], int]) -> int:
    """Have the first rank do it; what comes of it, exit code or mistake, comes of it on all.

    Where MPI was not started the others just end.
    """
    mpi = _mpi()
    if mpi is None:
        return work() if first_rank() else 0
    return agree.on_first_rank(mpi.COMM_WORLD, work)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from refimpl.cli import (
        bench,
        compare,
        data,
        decode,
        evaluate,
        explain,
        golden,
        plan,
        report,
        topology,
        train,
    )

    top = Parser(prog="refimpl", description="MiCS, GTC and BMUF in NumPy and MPI.")
    top.add_argument("--version", action="version", version=f"refimpl {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in (
        train,
        compare,
        evaluate,
        decode,
        report,
        topology,
        explain,
        plan,
        bench,
        golden,
        data,
    ):
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see the errors in `_refuse` and `_abort`."""
    try:
        args = parser().parse_args(argv)
        return args.run(args)
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        return _abort()


def _mpi() -> Any:
    """Return mpi4py.MPI if it runs with more than one rank, else None."""
    mpi = sys.modules.get("mpi4py.MPI")
    running = mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()
    return mpi if running and mpi.COMM_WORLD.size > 1 else None


def _refuse(message: str) -> int:
    """Report a user's mistake: one line from rank 0, and its exit code 2 for the job.

    Mistakes are raised on every rank, so the ranks meet in a barrier and rank 0 speaks.  Should
    one rank be alone with its error, nobody comes: it speaks for itself and ends the job.

    The other ranks' exit code is 0, and they leave first: a launcher that ends the job with the
    first code that is not 0 finds nobody left to kill, whose code would then be the job's.
    """
    mpi = _mpi()
    if mpi is not None and not agree.meet(
        mpi.COMM_WORLD, GRACE + GRACE_PER_RANK * mpi.COMM_WORLD.size
    ):
        _last_words(f"refimpl: error on rank {mpi.COMM_WORLD.rank}: {message}\n")
        mpi.COMM_WORLD.Abort(2)
    first = first_rank()
    if first:
        print(f"refimpl: error: {message}", file=sys.stderr, flush=True)
    if mpi is not None:
        # Ranks that leave in good order give the launcher nothing to complain about but the code.
        mpi.Finalize()
    if not first:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we are leaving, as fast as we can
    elif mpi is not None:
        time.sleep(HEARD)
    return 2 if first else 0


def _interrupted() -> int:
    """End after Ctrl-C without a traceback; the launcher has told all ranks."""
    if first_rank():
        print("refimpl: interrupted", file=sys.stderr, flush=True)
    mpi = _mpi()
    if mpi is not None:
        mpi.COMM_WORLD.Abort(130)
    return 130


def _abort() -> int:
    """Report what should not happen: the traceback, and the end of the whole job."""
    mpi, report = _mpi(), traceback.format_exc()
    if mpi is None:
        sys.stderr.write(report)
        return 1
    _last_words(f"{report}refimpl: rank {mpi.COMM_WORLD.rank} failed, the job ends\n")
    mpi.COMM_WORLD.Abort(1)
    return 1


def _last_words(text: str) -> None:
    """Write to stderr before the job is aborted, so that it gets through.

    In one piece, and then a moment's wait: a launcher that hears of the abort first drops what it
    has not yet read of the rank's output.
    """
    sys.stderr.write(text)
    sys.stderr.flush()
    time.sleep(HEARD)
