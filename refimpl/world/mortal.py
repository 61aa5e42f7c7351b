"""Ranks that may die while the others live on: what ULFM gives to MPI, and threads have, too.

    revoke    whoever waits in a communicator, or in one that was split from it, waits no longer
    agree     the living are of one mind, whether or not any has died meanwhile
    shrunk    the living get a communicator of their own

A rank notices a death by an error (`failed`) where it waits for the dead one.  Others wait for
ranks that live, and would for ever, since those do something else now: so who notices revokes, and
all come to `agree`.  docs/faults.md tells what is made of it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from refimpl.world.communicator import Communicator
from refimpl.world.transport import OverMPI, Transport, nodes_of

if TYPE_CHECKING:
    from mpi4py import MPI

# What `mpiexec --with-ft ulfm` tells ranks of Open MPI.
ENABLED = "OMPI_MCA_mpi_ft_enable"


class Mortal(Transport, Protocol):
    """One rank's end among ranks that may die."""

    def revoke(self) -> None:
        """End all waiting here, and in what was split from here, with an error on every rank."""

    def agree(self, flag: bool) -> bool:
        """Return whether all say yes, the same on all that live; also where it was revoked."""

    def shrunk(self) -> tuple[Mortal, list[int]]:
        """Return this rank's end among those that live, and their ranks here, in order."""

    def failed(self, error: BaseException) -> bool:
        """Tell whether an error is that of a dead rank, or of `revoke`."""


class Mortals:
    """Ranks that may die, in a communicator of their own."""

    def __init__(self, comm: Communicator, transport: Mortal) -> None:
        self.comm, self._transport = comm, transport

    @classmethod
    def of(cls, comm: Communicator) -> Mortals:
        """Return those of a communicator whose transport is `Mortal`."""
        transport: Any = comm._transport
        assert hasattr(transport, "shrunk"), "these ranks cannot survive each other"
        return cls(comm, transport)

    def revoke(self) -> None:
        """End all waiting in the communicator and in what was split from it."""
        self._transport.revoke()

    def agree(self, flag: bool) -> bool:
        """Return whether all say yes, the same on all that live."""
        return self._transport.agree(flag)

    def failed(self, error: BaseException) -> bool:
        """Tell whether an error is that of a dead rank, or of `revoke`."""
        return self._transport.failed(error)

    def shrunk(self) -> tuple[Mortals, list[int]]:
        """Return those that live, and their ranks here; they lie on the nodes where they lay."""
        transport, ranks = self._transport.shrunk()
        return Mortals(self._over(transport, ranks), transport), ranks

    def part(self, chosen: list[int]) -> Communicator | None:
        """Return a communicator of some, in that order: a world of its own; None on the others."""
        mine = self.comm.rank in chosen
        key = chosen.index(self.comm.rank) if mine else 0
        part = self._transport.split(0 if mine else None, key)
        return None if part is None else self._over(*part)

    def _over(self, transport: Transport, ranks: list[int]) -> Communicator:
        nodes = tuple(self.comm.nodes[rank] for rank in ranks)
        return Communicator.over(transport, tuple(range(len(ranks))), nodes)


class OverULFM(OverMPI):
    """The way over an MPI with ULFM.  ``family``: all that was split from one communicator."""

    def __init__(self, mpi: MPI.Comm, owned: bool = False, family: Any = None) -> None:
        from mpi4py import MPI

        super().__init__(mpi, owned)
        self.MPI, self.family = MPI, [] if family is None else family
        self.family.append(mpi)
        mpi.Set_errhandler(MPI.ERRORS_RETURN)  # mpi4py raises what is returned

    def failed(self, error: BaseException) -> bool:
        MPI = self.MPI
        kinds = MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED
        return isinstance(error, MPI.Exception) and error.Get_error_class() in kinds

    # Open MPI prints a line of its own where a collective that does not block fails: these block.

    def objects(self, obj: Any) -> list[Any]:
        return self.mpi.allgather(obj)

    def object(self, obj: Any, root: int) -> Any:
        return self.mpi.bcast(obj, root)

    def revoke(self) -> None:
        for one in self.family:
            one.Revoke()

    def agree(self, flag: bool) -> bool:
        while True:
            word = np.array([flag], np.int32)
            try:
                request = self.mpi.Iagree(word)
                while not request.Test():
                    time.sleep(0.001)  # some wait here for as long as others train
                return bool(word[0])
            except self.MPI.Exception as error:
                if not self.failed(error):
                    raise
                self.mpi.Ack_failed(self.size)  # the same on all: again, with what is known now

    def shrunk(self) -> tuple[OverULFM, list[int]]:
        part = OverULFM(self.mpi.Shrink(), owned=True)
        return part, part.ranks_in(self.mpi, list(range(part.size)))

    def split(self, color: int | None, key: int) -> tuple[OverULFM, list[int]] | None:
        """Split, on all ranks or on none: else one could wait for a rank that has no part."""
        made, wrong = None, None
        try:
            made = self.mpi.Split(self._undefined if color is None else color, key)
        except self.MPI.Exception as error:
            if not self.failed(error):
                raise
            wrong = error
        if not self.agree(wrong is None):
            raise wrong or self.MPI.Exception(self.MPI.ERR_PROC_FAILED)
        if color is None:
            return None
        assert made is not None
        part = OverULFM(made, True, self.family)
        return part, part.ranks_in(self.mpi, list(range(part.size)))

    def free(self) -> None:
        if self.owned:
            self.family.remove(self.mpi)
        super().free()


def refusal() -> str | None:
    """Return why the ranks of this MPI cannot survive each other; None if they can."""
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    if name != "Open MPI" or version < (5,) or not hasattr(MPI.Comm, "Iagree"):
        return f"this is {name} {'.'.join(map(str, version))}"
    if os.environ.get(ENABLED, "").lower() not in ("1", "true", "yes", "t"):
        return "its mpiexec was started without --with-ft ulfm"
    return None


def mortals(mpi: MPI.Comm, ranks_per_node: int | None) -> Communicator:
    """Return the ranks of an MPI communicator, which stays as it is, over ULFM.  Collective."""
    nodes, own = nodes_of(mpi, ranks_per_node), OverULFM(mpi.Dup(), owned=True)
    return Communicator.over(own, tuple(range(own.size)), nodes)
