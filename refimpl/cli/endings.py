"""How a command ends that does not end well: who says what, and with which exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from refimpl.cli.base import first_rank, several, started
from refimpl.support.errors import Stopped, require
from refimpl.world import agree

# How long a rank with a user's error waits for the others to report the same one: so many seconds,
# and some for every rank, since 128 ranks on two cores are seconds apart.
GRACE, GRACE_PER_RANK = 2.0, 0.1

# How long the launcher has to pass on what a rank said before it is told to end the job.
HEARD = 0.2

# The exit code of a job in which a rank has waited for too long.
HUNG = 3

# The exit code of a process that nobody listens to any more: 128 + SIGPIPE.
UNHEARD = 141

LEAVE = os._exit  # inside `staying`, too


def refuse(message: str, code: int = 2, first: bool | None = None) -> int:
    """Report a user's mistake: one line from rank 0, and its exit code for the job.

    ``first``: whether this rank speaks, of ranks that have met; some of the world may be dead.

    Mistakes are raised on every rank, so the ranks meet in a barrier and rank 0 speaks.  Should
    one rank be alone with its error, nobody comes: it speaks for itself and ends the job.

    The other ranks' exit code is 0, and they leave first: a launcher that ends the job with the
    first code that is not 0 finds nobody left to kill, whose code would then be the job's.
    """
    mpi = several()
    if first is None and mpi is not None:
        ranks = mpi.COMM_WORLD
        if not agree.meet(ranks, GRACE + GRACE_PER_RANK * ranks.size):
            _last_words(f"refimpl: error on rank {ranks.rank}: {message}\n")
            ranks.Abort(code)
    first = first_rank() if first is None else first
    if first:
        kind = "" if code == Stopped.code else "error: "
        print(f"refimpl: {kind}{message}", file=sys.stderr, flush=True)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we are leaving, as fast as we can
    return code if first else 0


def leave(code: int) -> int:
    """Return the exit code with which this process leaves, for good: MPI is over then.

    All ranks do so in good order: MPI and the launcher have nothing to say but the code.  Whoever
    brings one that is not 0 comes last.
    """
    mpi, others = started(), several() is not None
    if mpi is not None and code:
        mpi.Finalize()
        if others:
            time.sleep(HEARD)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # nobody hears it, nor what Python would say of that at its own end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def depart(code: int) -> NoReturn:
    """Leave at once, without `MPI.Finalize`: that waits for all ranks, and some may be dead."""
    sys.stdout.flush()
    if code:
        time.sleep(2 * HEARD)  # the others leave first, as `refuse` says
    LEAVE(code)


def occupy() -> None:
    """Refuse to work where nobody would hear of it; see that no file of ours takes that place.

    Of standard input, output and error, what is closed would be the number of the next file that
    anybody opens, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    require(sys.stdout is not None, "standard output is closed: give it a file, or /dev/null")


@contextmanager
def staying() -> Iterator[None]:
    """Have os._exit raise `SystemExit` inside: nobody leaves whom the others wait for.

    A model file could end its rank with it, and with exit code 0 for what was never finished.
    Children of this process leave by it as ever.
    """
    leave, ours = os._exit, os.getpid()

    def stay(status: int) -> NoReturn:
        if os.getpid() != ours:
            leave(status)
        raise SystemExit(status)

    os._exit = stay
    try:
        yield
    finally:
        os._exit = leave


def interrupted() -> int:
    """End after Ctrl-C without a traceback; the launcher has told all ranks."""
    if first_rank():
        print("refimpl: interrupted", file=sys.stderr, flush=True)
    mpi = several()
    if mpi is not None:
        mpi.COMM_WORLD.Abort(130)
    return 130


def abort() -> int:
    """Report what should not happen: the traceback, and the end of the whole job."""
    mpi, report = several(), traceback.format_exc()
    if mpi is None:
        print(report, end="", file=sys.stderr)
        return 1
    _last_words(f"{report}refimpl: rank {mpi.COMM_WORLD.rank} failed, the job ends\n")
    mpi.COMM_WORLD.Abort(1)
    return 1


def hung(report: str) -> None:
    """Say where the ranks of a job stand that hangs, and end it with exit code 3.

    Called beside a main thread that waits inside MPI, which may be no place to call MPI from then:
    the launcher also ends a job of which a process has left.
    """
    mpi = several()
    _last_words(f"refimpl: error: {report}")
    if mpi is not None and mpi.Query_thread() == mpi.THREAD_MULTIPLE:
        leaving = threading.Timer(2.0, LEAVE, (HUNG,))
        leaving.daemon = True
        leaving.start()
        mpi.COMM_WORLD.Abort(HUNG)
    LEAVE(HUNG)


def _last_words(text: str) -> None:
    """Write to stderr before the job is aborted, so that it gets through.

    In one piece, and then a moment's wait: a launcher that hears of the abort first drops what it
    has not yet read of the rank's output.
    """
    print(text, end="", file=sys.stderr, flush=True)
    time.sleep(HEARD)
