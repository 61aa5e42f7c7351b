"""What commands share: the parser, the ranks that they run on, and who speaks for them."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from refimpl.support.errors import UserError, refused, require, told
from refimpl.support.progress import Progress
from refimpl.world import agree
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.mortal import mortals, refusal
from refimpl.world.transport import OverMPI

# Where launchers tell a process its rank before MPI is started.
RANK_VARIABLES = (
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "SLURM_PROCID",
    "PALS_RANKID",
    "ALPS_APP_PE",
)

# And how many there are; those of a step of SLURM, not those that a job might start.
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

# What an MPI needs of the limits of a process; with less it dies before it says why.
NEEDED = (
    (resource.RLIMIT_FSIZE, 16 << 20, "the size of files", "-f"),  # shared memory
    (resource.RLIMIT_NOFILE, 64, "open files", "-n"),
    (resource.RLIMIT_AS, 256 << 20, "memory", "-v"),
)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports mistakes as every other mistake: one line, once."""

    def error(self, message: str) -> NoReturn:
        where = f" (see: {self.prog} --help)" if self.add_help else f" in {self.prog}"
        raise UserError(message + where)

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message.rstrip("\n"))  # help and version, both asked for

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; the namespace's ``named`` says what each of its values is called."""
        found, rest = super().parse_known_args(args, namespace)
        names = {
            one.dest: one.option_strings[-1] if one.option_strings else one.metavar or one.dest
            for one in self._actions
        }
        found.named = names | getattr(found, "named", {})
        return found, rest


def started() -> Any:
    """Return mpi4py.MPI if it was started and runs, else None."""
    mpi: Any = sys.modules.get("mpi4py.MPI")
    running = mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()
    return mpi if running else None


def start() -> Any:
    """Return mpi4py.MPI, started; refuse before it is where the MPI could not live."""
    if started() is None:
        for limit, needed, what, flag in NEEDED:
            allowed = resource.getrlimit(limit)[0]
            require(
                allowed >= needed or allowed == resource.RLIM_INFINITY,
                f"the limit on {what} is {allowed:,}, and an MPI needs {needed:,}: raise it "
                f"(ulimit {flag})",
            )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"mpi4py cannot start an MPI: {told(error)}") from error
    return MPI


def several() -> Any:
    """Return mpi4py.MPI if it runs with more than one rank, else None."""
    mpi = started()
    return mpi if mpi is not None and mpi.COMM_WORLD.size > 1 else None


def launched() -> Communicator | None:
    """Return all ranks that a launcher has started, where these are several; starts MPI then.

    They are there to agree, so that their nodes do not matter: all are said to be on one.
    """
    sizes = [os.environ[name] for name in SIZE_VARIABLES if name in os.environ]
    if sizes[0] == "1" if sizes else "PMIX_RANK" not in os.environ:
        return None
    MPI = start()
    size = MPI.COMM_WORLD.size
    return Communicator.over(OverMPI(MPI.COMM_WORLD), tuple(range(size)), (0,) * size)


def first_rank() -> bool:
    """Return whether this process should speak for the job; starts no MPI.

    In a world of one the launcher knows better: it may have started many of them.
    """
    mpi = several()
    if mpi is not None:
        return mpi.COMM_WORLD.rank == 0
    ranks = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    return not ranks or ranks[0] == "0"


def world(
    ranks_per_node: int | None = None, mortal: bool = False, quiet: bool = False
) -> Communicator:
    """Return the communicator of all ranks; starts MPI.  ``mortal``: of which some may die.

    Progress of rank 0 is shown, unless ``quiet``.

    Raises `UserError` if run_mpi.sh asked for another number of ranks (it says so in
    REFIMPL_RANKS): a launcher of another MPI starts that many worlds of one rank, and each would
    train alone.
    """
    MPI = start()
    asked, found = os.environ.get("REFIMPL_RANKS"), MPI.COMM_WORLD.size
    if asked and asked != str(found):
        raise UserError(
            f"{asked} ranks were asked for (REFIMPL_RANKS) but this world has {found}: the "
            f"launcher does not know mpi4py's MPI, {MPI.get_vendor()[0]}; {_cure(MPI)}"
        )
    if not mortal:
        return _watched(Communicator(MPI.COMM_WORLD, ranks_per_node), quiet)
    why = refusal()
    require(
        why is None,
        f"--on-failure continue needs Open MPI 5 and its mpiexec --with-ft ulfm, but {why}: use "
        "REFIMPL_MPI=openmpi ./run_mpi.sh, which sees to both, or --restarts",
    )
    return _watched(mortals(MPI.COMM_WORLD, ranks_per_node), quiet)


def _watched(comm: Communicator, quiet: bool) -> Communicator:
    """Return it, with somebody who shows what rank 0 tells of its progress."""
    if comm.rank == 0 and not quiet:
        comm.events.add(Shown())
    return comm


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
        show(text)


def show(text: str) -> None:
    """Print on this rank; escaped, where standard output has no letters for it: a file's name."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        letters = sys.stdout.encoding
        show(text.encode(letters, "backslashreplace").decode(letters))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refused(error, "cannot write to standard output") from error


class Shown(Listener):
    """Shows how far a rank is with what takes long."""

    kinds = frozenset({"progress"})

    def __init__(self) -> None:
        self.progress = Progress()

    def begin(self, event: Event) -> None:
        """Pass it on."""
        self.progress.at(event.name, *event.value)


def add_quiet(command: Any) -> None:
    """Declare ``--quiet``."""
    told = "print what comes of it and warnings, no progress"
    command.add_argument("--quiet", action="store_true", help=told)


def teller(quiet: bool, say: Callable[[str], None] = say) -> Callable[[str], None]:
    """Return what says how a command gets on: `say`, or of its lines the warnings."""

    def warn(text: str) -> None:
        for line in text.splitlines():
            if line.startswith("warning: "):
                say(line)

    return warn if quiet else say


def on_first_rank(work: Callable[[], int]) -> int:
    """Have the first rank do it; what comes of it, exit code or mistake, comes of it on all.

    Where MPI was not started the others just end.
    """
    mpi = several()
    if mpi is None:
        return work() if first_rank() else 0
    return agree.on_first_rank(mpi.COMM_WORLD, work)
