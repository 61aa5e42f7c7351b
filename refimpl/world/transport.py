"""How messages travel: what a `Communicator` stands on, and the way over MPI.

The other way is that of ranks which are threads, in `refimpl.world.threads`.
"""

from __future__ import annotations

import math
import pickle
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from refimpl.support.errors import UserError
from refimpl.world.events import Event, Events
from refimpl.world.topology import Nodes

if TYPE_CHECKING:
    from mpi4py import MPI


# Bytes of an object that goes in one message of a fixed length: None, a digest, a word.
ROW = 128


class Request(Protocol):
    """A send or receive under way."""

    def Wait(self) -> Any:
        """Wait until it is over."""


class Transport(Protocol):
    """One rank's end among ``size`` ranks.

    Arrays are C-contiguous and travel as bytes; a receiver knows source, tag and length.
    """

    rank: int
    size: int

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        """Send; afterwards ``buf`` may be changed."""

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        """Receive; afterwards ``buf`` is full."""

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        """Send and receive at the same time, where each alone could wait for the other."""

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Request:
        """Start to send."""

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Request:
        """Start to receive."""

    def worked(self, nbytes: int) -> None:
        """Hear that this rank has added so many bytes, or copied them."""

    def objects(self, obj: Any) -> list[Any]:
        """Return everybody's object, by rank."""

    def object(self, obj: Any, root: int) -> Any:
        """Return the root's object."""

    def barrier(self) -> None:
        """Wait for all."""

    def split(self, color: int | None, key: int) -> tuple[Transport, list[int]] | None:
        """Return this rank's end among those with its color, and their ranks here, by key."""

    def free(self) -> None:
        """Give back what `split` made."""


class Pending:
    """A request whose wait is told; ``started`` is the event of its start."""

    __slots__ = ("_events", "_request", "_started")

    def __init__(self, request: Request, events: Events, started: Event) -> None:
        self._request, self._events, self._started = request, events, started

    def Wait(self) -> None:
        """Wait until it is over."""
        kind, _, purpose, peer, nbytes, link, tag, value = self._started
        waiting = self._events.begin("wait", kind, peer, nbytes, link, tag, value, purpose)
        try:
            self._request.Wait()
        finally:
            self._events.end(waiting)


class OverMPI:
    """The way over an MPI communicator, which `free` gives back if it is ``owned``.

    Messages travel as bytes, so every dtype of NumPy can be sent, those included that MPI has no
    name for.
    """

    def __init__(self, mpi: MPI.Comm, owned: bool = False) -> None:
        from mpi4py import MPI

        self.mpi, self.owned = mpi, owned
        self.rank, self.size = mpi.rank, mpi.size
        self.byte, self.in_place, self._undefined = MPI.BYTE, MPI.IN_PLACE, MPI.UNDEFINED

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        self.mpi.Send([buf, self.byte], dest, tag)

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        self.mpi.Recv([buf, self.byte], source, tag)

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        byte = self.byte
        self.mpi.Sendrecv([out, byte], dest, sendtag, [into, byte], source, recvtag)

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Request:
        return self.mpi.Isend([buf, self.byte], dest, tag)

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Request:
        return self.mpi.Irecv([buf, self.byte], source, tag)

    def worked(self, nbytes: int) -> None:
        pass

    def objects(self, obj: Any) -> list[Any]:
        everyones = bytearray(self.size * ROW)
        asleep(self.mpi.Iallgather([_row(obj), self.byte], [everyones, self.byte]))
        if all(everyones[::ROW]):
            whole = range(1, len(everyones), ROW)
            return [pickle.loads(memoryview(everyones)[first:]) for first in whole]
        found: list[Any] = self.object(self.mpi.gather(obj), 0)
        return found

    def object(self, obj: Any, root: int) -> Any:
        told = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL) if self.rank == root else b""
        length = np.array(len(told))
        asleep(self.mpi.Ibcast([length, self.byte], root))
        content = bytearray(told or int(length))
        asleep(self.mpi.Ibcast([content, self.byte], root))
        return obj if self.rank == root else pickle.loads(content)

    def barrier(self) -> None:
        self.mpi.Barrier()

    def split(self, color: int | None, key: int) -> tuple[OverMPI, list[int]] | None:
        mpi = self.mpi.Split(self._undefined if color is None else color, key)
        if color is None:
            return None
        part = OverMPI(mpi, owned=True)
        return part, part.ranks_in(self.mpi, list(range(mpi.size)))

    def ranks_in(self, other: MPI.Comm, ranks: list[int]) -> list[int]:
        """Return these ranks' numbers in another communicator, of which they are members, too."""
        group, whole = self.mpi.Get_group(), other.Get_group()
        found = group.Translate_ranks(ranks, whole)
        group.Free()
        whole.Free()
        return found

    def free(self) -> None:
        if self.owned:
            self.mpi.Free()


def _row(obj: Any) -> bytes:
    """Return ROW bytes: 1 and an object, or 0 in front for one that is too long."""
    told = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
    return (b"\1" + told if len(told) < ROW else b"").ljust(ROW, b"\0")


class Tested(Protocol):
    """A request that can be asked."""

    def Test(self) -> bool:
        """Return whether it is over."""


def asleep(request: Tested, limit: float = math.inf) -> bool:
    """Wait for a request, mostly asleep; return whether it was over within so many seconds.

    Ranks that share cores wait for each other for long before the first step, and whoever waits
    inside MPI takes the core from those that are awaited.  Each sleep is as long as the wait was
    so far, and 10 ms at most, so that a short wait does not become a long one.
    """
    since = time.monotonic()
    while not request.Test():
        waited = time.monotonic() - since
        if waited > limit:
            return False
        time.sleep(min(waited, 0.01))
    return True


def nodes_of(mpi: MPI.Comm, ranks_per_node: int | None) -> tuple[int, ...]:
    """Return the number of each rank's node: of k ranks each, or the real ones.  Collective.

    Real nodes are ranks that can share memory, numbered by their lowest rank.

    Raises `UserError` if ranks_per_node is less than 1 or not the same on all ranks.
    """
    from mpi4py import MPI

    world = OverMPI(mpi)
    given = world.objects(ranks_per_node)
    if len(set(given)) > 1:
        raise UserError(f"--ranks-per-node differs between ranks: {given}")
    if ranks_per_node is not None:
        return Nodes.of(mpi.size, ranks_per_node).node
    shared = mpi.Split_type(MPI.COMM_TYPE_SHARED, mpi.rank)
    (lowest,) = OverMPI(shared).ranks_in(mpi, [0])
    shared.Free()
    everyones = world.objects(lowest)
    number = {rank: node for node, rank in enumerate(sorted(set(everyones)))}
    return tuple(number[rank] for rank in everyones)
