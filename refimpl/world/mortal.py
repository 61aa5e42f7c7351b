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
import pickle
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from refimpl.world.communicator import Communicator
from refimpl.world.transport import Transport, asleep, nodes_of

if TYPE_CHECKING:
    from mpi4py import MPI

# What `mpiexec --with-ft ulfm` tells ranks of Open MPI.
ENABLED = "OMPI_MCA_mpi_ft_enable"

# How many tags a communicator has; the last is that of objects, and all others here are less.
TAGS = 4
OBJECTS = TAGS - 1


class Mortal(Transport, Protocol):
    """One rank's end among ranks that may die."""

    def revoke(self) -> None:
        """End all waiting here, and in what was split from here, with an error on every rank."""

    def agree(self, flag: bool) -> bool:
        """Return whether all say yes, the same on all that live; also where it was revoked."""

    def shrunk(self) -> tuple[Mortal, list[int]]:
        """Return this rank's end among those that live, and their ranks here, in order."""

    def failed(self, error: BaseException) -> bool:
        """Tell whether an error may be that of a dead rank, or of `revoke`."""


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
        """Tell whether an error may be that of a dead rank, or of `revoke`."""
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


class Family:
    """What one rank's ends of a communicator, and of all that were split from it, have in common.

    ``next``: the least context that no communicator of this rank has.  ``kept``: requests that
    are not over, with their arrays, where MPI may write also after an error.
    """

    def __init__(self, mpi: MPI.Comm, kept: dict[int, Any] | None = None) -> None:
        from mpi4py import MPI

        mpi.Set_errhandler(MPI.ERRORS_RETURN)  # mpi4py raises what is returned
        self.mpi, self.MPI, self.next = mpi, MPI, 0
        self.kept: dict[int, Any] = {} if kept is None else kept


class Kept:
    """A request that is kept until somebody has waited for it, and it was good."""

    __slots__ = ("_family", "_request")

    def __init__(self, request: MPI.Request, buf: np.ndarray, family: Family) -> None:
        self._request, self._family = request, family
        family.kept[id(request)] = request, buf

    def Wait(self) -> None:
        self._request.Wait()
        self._family.kept.pop(id(self._request), None)

    def Test(self) -> bool:
        done = self._request.Test()
        if done:
            self._family.kept.pop(id(self._request), None)
        return done


class OverULFM:
    """The way over an MPI with ULFM, by messages from one to one alone.

    MPI's collectives do not tell of every death: those of Open MPI 5.0.11 have ended well on the
    living with arrays that nobody had sent, and with errors of another kind; its split has
    crashed.  So a part has no communicator of its own.  Its messages have other tags: each part
    that a rank is in has a context, which its peers there know by the same number.
    """

    def __init__(self, family: Family, ranks: list[int], context: int = 0) -> None:
        self.family, self.ranks, self._first = family, ranks, context * TAGS
        self._mpi, self._byte = family.mpi, family.MPI.BYTE
        self.size, self.rank = len(ranks), ranks.index(family.mpi.rank)
        family.next = max(family.next, context + 1)

    @classmethod
    def over(cls, mpi: MPI.Comm, kept: dict[int, Any] | None = None) -> OverULFM:
        """Return the end of a rank of an MPI communicator, which is of no other use then."""
        return cls(Family(mpi, kept), list(range(mpi.size)))

    def failed(self, error: BaseException) -> bool:
        """Tell whether an error may be that of a dead rank: MPI has more kinds than its own."""
        return isinstance(error, self.family.MPI.Exception)

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        self._mpi.Send([buf, self._byte], self.ranks[dest], self._first + tag)

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        self._mpi.Recv([buf, self._byte], self.ranks[source], self._first + tag)

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        byte, first, ranks = self._byte, self._first, self.ranks
        there, here = (ranks[dest], first + sendtag), (ranks[source], first + recvtag)
        self._mpi.Sendrecv([out, byte], *there, [into, byte], *here)

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Kept:
        request = self._mpi.Isend([buf, self._byte], self.ranks[dest], self._first + tag)
        return Kept(request, buf, self.family)

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Kept:
        request = self._mpi.Irecv([buf, self._byte], self.ranks[source], self._first + tag)
        return Kept(request, buf, self.family)

    def objects(self, obj: Any) -> list[Any]:
        told = np.frombuffer(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL), np.uint8)
        lengths = self._everyones(np.array([told.size]), [np.empty(1, int)] * self.size)
        found = self._everyones(told, [np.empty(int(n[0]), np.uint8) for n in lengths])
        return [pickle.loads(one.data) for one in found]

    def _everyones(self, mine: np.ndarray, into: list[np.ndarray]) -> list[np.ndarray]:
        """Return everybody's array, by rank, each of the shape of one of these."""
        into = [mine if rank == self.rank else np.empty_like(a) for rank, a in enumerate(into)]
        others = [rank for rank in range(self.size) if rank != self.rank]
        requests = [self.start_receive(into[rank], rank, OBJECTS) for rank in others]
        requests += [self.start_send(mine, rank, OBJECTS) for rank in others]
        for request in requests:
            asleep(request)
        return into

    def object(self, obj: Any, root: int) -> Any:
        return self.objects(obj if self.rank == root else None)[root]

    def barrier(self) -> None:
        self.objects(None)

    def split(self, color: int | None, key: int) -> tuple[OverULFM, list[int]] | None:
        everyones = self.objects((color, key, self.family.next))
        colors = sorted({c for c, _, _ in everyones if c is not None})
        first = max(free for _, _, free in everyones)
        self.family.next = first + len(colors)
        if color is None:
            return None
        ranks = [r for r in range(self.size) if everyones[r][0] == color]
        ranks.sort(key=lambda r: (everyones[r][1], r))
        context = first + colors.index(color)
        return OverULFM(self.family, [self.ranks[r] for r in ranks], context), ranks

    def free(self) -> None:
        """There is nothing to give back."""

    def worked(self, nbytes: int) -> None:
        pass

    def revoke(self) -> None:
        self._mpi.Revoke()

    def agree(self, flag: bool) -> bool:
        while True:
            word = np.array([flag], np.int32)
            try:
                request = self._mpi.Iagree(word)
                while not request.Test():
                    time.sleep(0.001)  # some wait here for as long as others train
                return bool(word[0])
            except self.family.MPI.Exception as error:
                if error.Get_error_class() != self.family.MPI.ERR_PROC_FAILED:
                    raise
                self._mpi.Ack_failed(self.size)  # the same on all: again, with what is known now

    def shrunk(self) -> tuple[OverULFM, list[int]]:
        made = None
        while made is None:
            try:
                made = self._mpi.Shrink()
            except self.family.MPI.Exception as error:
                if error.Get_error_class() != self.family.MPI.ERR_PROC_FAILED:
                    raise
            if not self.agree(made is not None):
                made = None
        mine, whole = made.Get_group(), self._mpi.Get_group()
        living = mine.Translate_ranks(list(range(made.size)), whole)
        return OverULFM.over(made, self.family.kept), living


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
    nodes, own = nodes_of(mpi, ranks_per_node), OverULFM.over(mpi.Dup())
    return Communicator.over(own, tuple(range(own.size)), nodes)
