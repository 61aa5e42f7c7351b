"""Where a rank is, left where its parent finds it if the rank is killed.

`refimpl/support/rank.sh`, which run_mpi.sh puts in front of every rank, gives it a file without a
name, open as a descriptor; what was written there last is there when the rank is gone.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from refimpl.world.events import Fields, Listener

VARIABLE = "REFIMPL_PLACE"


class Place(Listener):
    """Writes the step that is taken, when it begins: one system call.

    ``step``: how many were taken before; ``saves``: whether the run in ``folder`` can go on.
    """

    kinds = frozenset({"phase"})

    def __init__(self, descriptor: int, step: int, folder: Path, saves: bool) -> None:
        self.descriptor, self.step = descriptor, step
        more = f"; go on with: refimpl train --resume {folder}" if saves else ""
        self.run = f"of the run in {folder}{more}"
        self._write()

    def count(self, fields: Fields) -> None:
        """Hear that a step begins."""
        if fields[:2] == ("phase", "step"):
            self.step += 1
            self._write()

    def _write(self) -> None:
        # Steps only grow, so that the first line is always whole.  A full disk ends no run for it.
        with suppress(OSError):
            os.pwrite(self.descriptor, f"at step {self.step} {self.run}\n".encode(), 0)


def place(step: int, folder: Path, saves: bool = False) -> Listener:
    """Return what writes this rank's place; a listener to nothing if nobody would read it."""
    told = os.environ.get(VARIABLE, "")
    try:
        found = os.fstat(int(told))
    except (ValueError, OSError):
        return Listener()
    # A process that a rank starts has the variable, but not the descriptor.
    nameless = stat.S_ISREG(found.st_mode) and found.st_nlink == 0
    return Place(int(told), step, folder, saves) if nameless else Listener()
