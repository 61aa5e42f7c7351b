"""A communicator that knows its nodes and tells what it sends.

`Communicator` is the only way in which this package sends anything.  It has the point-to-point
calls of an mpi4py communicator, under the same names and with the same order of arguments, so
that an algorithm reads like MPI; beside that it knows which node each member runs on, tells an
event of every message (so a `Ledger` counts it), and owns the work arrays that an algorithm needs.

Importing this module does not start MPI; whoever has an mpi4py communicator has done so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.world.events import Event, Events
from refimpl.world.ledger import Ledger
from refimpl.world.library import Library
from refimpl.world.topology import Nodes, node_members
from refimpl.world.transport import OverMPI, Pending, Request, Transport, nodes_of

if TYPE_CHECKING:
    from mpi4py import MPI


class Communicator(Library):
    """The ranks of an MPI communicator, with their nodes, events and a ledger.

    MPI's own collectives are methods, too: those of `Library`.

    Parameters
    ----------
    mpi_comm : MPI.Comm
        The ranks that will be this job's world.  Collective: all of them construct.
    ranks_per_node : int, optional
        Draw virtual nodes: rank r of ``mpi_comm`` is on node r // k.  The last node is smaller
        where k does not divide the number of ranks (algorithms that need equal nodes refuse
        that, in their own words).  By default the nodes are the real ones: ranks that can share
        memory, in order of their lowest rank.

    Attributes
    ----------
    size, rank : int
        How many members there are, and which one this is.
    events : Events
        What this rank does, told; shared with every communicator that is split from this one.
    ledger : Ledger
        The first that listens to them; shared, too.
    members : tuple of int
        The members' ranks in the world, in order of their ranks here.
    nodes : tuple of int
        The members' nodes, numbered as in the world.

    Raises
    ------
    UserError
        If ranks_per_node is less than 1 or not the same on all ranks.
    """

    def __init__(self, mpi_comm: MPI.Comm, ranks_per_node: int | None = None) -> None:
        nodes = nodes_of(mpi_comm, ranks_per_node)
        self._set(OverMPI(mpi_comm), tuple(range(mpi_comm.size)), nodes)

    @classmethod
    def over(
        cls,
        transport: Transport,
        members: tuple[int, ...],
        nodes: tuple[int, ...],
        parent: Communicator | None = None,
    ) -> Communicator:
        """Return a communicator whose messages travel this way; a parent shares its events."""
        comm = cls.__new__(cls)
        comm._set(transport, members, nodes, parent)
        return comm

    def _set(
        self,
        transport: Transport,
        members: tuple[int, ...],
        nodes: tuple[int, ...],
        parent: Communicator | None = None,
    ) -> None:
        self._transport, self.members, self.nodes = transport, members, nodes
        self.size, self.rank = transport.size, transport.rank
        if parent is None:
            self.events, self.ledger = Events(members[self.rank]), Ledger()
            self.events.add(self.ledger)
        else:
            self.events, self.ledger = parent.events, parent.ledger
        self._link = tuple("intra" if node == nodes[self.rank] else "inter" for node in nodes)
        self._slots: dict[int, NDArray[np.uint8]] = {}
        self._lent: dict[int, np.ndarray] = {}  # what `scratch` last returned of each
        self._levels: tuple[Communicator, Communicator] | None = None
        self._ordered: Communicator | None = None

    def __repr__(self) -> str:
        return f"<Communicator rank {self.rank} of {self.size}, nodes {self.nodes}>"

    # -------------------------------------------------------------------- point to point, told

    def _begin(self, kind: str, buf: np.ndarray, peer: int, tag: int) -> Event | None:
        events = self.events
        hearing = events.heard.get(kind)
        if hearing is None:
            return None
        peer, link = self.members[peer], self._link[peer]
        return hearing.begin(kind, "", events.purpose, peer, buf.nbytes, link, tag, buf)

    def _started(
        self, request: Request, kind: str, buf: np.ndarray, peer: int, tag: int
    ) -> Request:
        """Return what to wait for: where waits are heard, it tells that it is waited for."""
        if "wait" not in self.events.heard:
            return request
        what = self.members[peer], buf.nbytes, self._link[peer], tag, buf
        return Pending(request, self.events, Event(kind, "", self.events.purpose, *what))

    def Send(self, buf: np.ndarray, dest: int, tag: int = 0) -> None:
        """Send a C-contiguous array; returns when ``buf`` may be changed."""
        sending = self._begin("send", buf, dest, tag)
        try:
            self._transport.send(buf, dest, tag)
        finally:
            if sending is not None:
                self.events.end(sending)

    def Recv(self, buf: np.ndarray, source: int, tag: int = 0) -> None:
        """Fill a C-contiguous array with the message from ``source``, which fits exactly."""
        receiving = self._begin("receive", buf, source, tag)
        try:
            self._transport.receive(buf, source, tag)
        finally:
            if receiving is not None:
                self.events.end(receiving)

    def Sendrecv(
        self,
        sendbuf: np.ndarray,
        dest: int,
        sendtag: int = 0,
        *,
        recvbuf: np.ndarray,
        source: int,
        recvtag: int = 0,
    ) -> None:
        """Send one array and receive another at the same time; the two do not overlap."""
        sending = self._begin("send", sendbuf, dest, sendtag)
        receiving = self._begin("receive", recvbuf, source, recvtag)
        try:
            self._transport.exchange(sendbuf, dest, sendtag, recvbuf, source, recvtag)
        finally:
            if receiving is not None:
                self.events.end(receiving)
            if sending is not None:
                self.events.end(sending)

    def Isend(self, buf: np.ndarray, dest: int, tag: int = 0) -> Request:
        """Start to send; ``buf`` may be changed after the ``Wait`` of what is returned."""
        sending = self._begin("send", buf, dest, tag)
        try:
            request = self._transport.start_send(buf, dest, tag)
        finally:
            if sending is not None:
                self.events.end(sending)
        return self._started(request, "send", buf, dest, tag)

    def Irecv(self, buf: np.ndarray, source: int, tag: int = 0) -> Request:
        """Start to receive; ``buf`` is full after the ``Wait`` of what is returned."""
        receiving = self._begin("receive", buf, source, tag)
        try:
            request = self._transport.start_receive(buf, source, tag)
        finally:
            if receiving is not None:
                self.events.end(receiving)
        return self._started(request, "receive", buf, source, tag)

    @staticmethod
    def wait(requests: Iterable[Request]) -> None:
        """Wait until all of these sends and receives are done."""
        for request in requests:
            request.Wait()

    def add(self, x: np.ndarray, arrived: np.ndarray) -> None:
        """Add what has arrived to x, in place."""
        x += arrived
        self.worked(x.nbytes)

    def worked(self, nbytes: int) -> None:
        """Say that so many bytes were added, or copied: in virtual time it takes time."""
        self._transport.worked(nbytes)

    def purpose(self, purpose: str) -> AbstractContextManager[None]:
        """Say what the messages sent inside the ``with`` block are for."""
        return self.events.purposed(purpose)

    # ------------------------------------------------------------ control traffic, not counted

    def allgather_object(self, obj: Any) -> list[Any]:
        """Return everybody's object, by rank."""
        with self.events.during("wait", "objects"):
            return self._transport.objects(obj)

    def bcast_object(self, obj: Any, root: int = 0) -> Any:
        """Return the root's object on all ranks."""
        with self.events.during("wait", "object"):
            return self._transport.object(obj, root)

    def barrier(self) -> None:
        """Wait until all members are here."""
        with self.events.during("wait", "barrier"):
            self._transport.barrier()

    # -------------------------------------------------------------------------------- work space

    def scratch(self, n: int, dtype: DTypeLike, slot: int = 0) -> np.ndarray:
        """Return a work array of n elements, its contents undefined.

        It is a view of memory that this communicator keeps and enlarges when needed, so that an
        algorithm called again and again allocates nothing.  A slot has one use at a time: the
        next call with the same slot returns the same memory.
        """
        last = self._lent.get(slot)
        if last is not None and last.size == n and last.dtype == dtype:
            return last
        dtype = np.dtype(dtype)
        nbytes = n * dtype.itemsize
        memory = self._slots.get(slot)
        if memory is None or memory.size < nbytes:
            memory = self._slots[slot] = np.empty(nbytes, np.uint8)
        self._lent[slot] = lent = memory[:nbytes].view(dtype)
        return lent

    # -------------------------------------------------------------------------- sub-communicators

    def split(self, color: int | None, key: int | None = None) -> Communicator | None:
        """Return the communicator of the members with this rank's color; None for color None.

        Members are ordered by key (by default their rank here).  Nodes, events and the ledger
        are those of this communicator.  Collective.
        """
        part = self._transport.split(color, self.rank if key is None else key)
        if part is None:
            return None
        transport, ranks = part
        members, nodes = (tuple(of[r] for r in ranks) for of in (self.members, self.nodes))
        return Communicator.over(transport, members, nodes, self)

    def levels(self) -> tuple[Communicator, Communicator]:
        """Return (within, across): the members on this node, and this rank's peers on the others.

        Peers have the same local index, their place among the members of their node.  ``within``
        is ordered as this communicator, ``across`` by node.  Where nodes have unequal numbers of
        members ``across`` misses those that have no such index.  Collective the first time.
        """
        if self._levels is None:
            place = node_members(self.nodes)
            node = next(i for i, members in enumerate(place) if self.rank in members)
            within = self.split(node)
            across = self.split(place[node].index(self.rank), key=node)
            assert within is not None and across is not None
            self._levels = within, across
        return self._levels

    def by_node(self) -> Communicator:
        """Return these ranks renumbered node by node (`Nodes.order`); this one, if they are so.

        Rank 0 stays rank 0.  Collective the first time.
        """
        order = Nodes(self.nodes).order()
        if order == list(range(self.size)):
            return self
        if self._ordered is None:
            self._ordered = self.split(0, key=order.index(self.rank))
            assert self._ordered is not None
        return self._ordered

    def free(self) -> None:
        """Give back what `levels` and `by_node` made, and this one if it came from `split`."""
        for made in (*(self._levels or ()), *filter(None, [self._ordered])):
            made.free()
        self._levels = self._ordered = None
        self._slots.clear()
        self._lent.clear()
        self._transport.free()
