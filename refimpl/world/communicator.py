"""A communicator that knows its nodes and counts what is sent.

`Communicator` is the only way in which this package sends anything.  It has the point-to-point
calls of an mpi4py communicator, under the same names and with the same order of arguments, so
that an algorithm reads like MPI; beside that it knows which node each member runs on, enters
every message in a `Ledger`, and owns the work arrays that an algorithm needs.

Importing this module does not start MPI; whoever has an mpi4py communicator has done so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.support.errors import UserError
from refimpl.world.ledger import Ledger
from refimpl.world.topology import Nodes, node_members

if TYPE_CHECKING:
    from mpi4py import MPI


class Communicator:
    """The ranks of an MPI communicator, with their nodes and a ledger.

    Parameters
    ----------
    mpi_comm : MPI.Comm
        The ranks that will be this job's world.  Collective: all of them construct.
    ranks_per_node : int, optional
        Draw virtual nodes: rank r of ``mpi_comm`` is on node r // k.  The last node is smaller
        where k does not divide the number of ranks (algorithms that need equal nodes refuse
        that, in their own words).  By default the nodes are the real ones: ranks that can share
        memory, in order of their lowest rank.
    ledger : Ledger, optional
        Where to count; by default a new one.

    Attributes
    ----------
    size, rank : int
        How many members there are, and which one this is.
    mpi : MPI.Comm
        The communicator underneath.  What is sent through it is not counted.
    ledger : Ledger
        Shared with every communicator that is split from this one.
    members : tuple of int
        The members' ranks in the world, in order of their ranks here.
    nodes : tuple of int
        The members' nodes.  Node numbers are the world's.

    Raises
    ------
    UserError
        If ranks_per_node is less than 1 or not the same on all ranks.
    """

    def __init__(
        self,
        mpi_comm: MPI.Comm,
        ranks_per_node: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        given = mpi_comm.allgather(ranks_per_node)
        if len(set(given)) > 1:
            raise UserError(f"--ranks-per-node differs between ranks: {given}")
        if ranks_per_node is None:
            nodes = real_nodes(mpi_comm)
        else:
            nodes = Nodes.of(mpi_comm.size, ranks_per_node).node
        self._set(mpi_comm, tuple(range(mpi_comm.size)), nodes, ledger or Ledger())
        self._owned = False

    def _set(
        self, mpi: MPI.Comm, members: tuple[int, ...], nodes: tuple[int, ...], ledger: Ledger
    ) -> None:
        from mpi4py import MPI

        self._place(mpi.rank, members, nodes, ledger)
        self.mpi = mpi
        # Messages travel as bytes; what they mean is known at both ends.  So every dtype of
        # NumPy can be sent, those included that MPI has no name for.
        self._byte = MPI.BYTE
        self._undefined, self._sum, self.IN_PLACE = MPI.UNDEFINED, MPI.SUM, MPI.IN_PLACE

    def _place(
        self, rank: int, members: tuple[int, ...], nodes: tuple[int, ...], ledger: Ledger
    ) -> None:
        self.size, self.rank = len(members), rank
        self.members, self.nodes, self.ledger = members, nodes, ledger
        self._here = members[rank]
        self._link = tuple("intra" if node == nodes[rank] else "inter" for node in nodes)
        self._slots: dict[int, NDArray[np.uint8]] = {}
        self._levels: tuple[Communicator, Communicator] | None = None

    def __repr__(self) -> str:
        return f"<Communicator rank {self.rank} of {self.size}, nodes {self.nodes}>"

    # ------------------------------------------------------------------ point to point, counted

    def _leaves(self, buf: NDArray, dest: int) -> None:
        self.ledger.sent(self._here, self.members[dest], buf.nbytes, self._link[dest])

    def Send(self, buf: NDArray, dest: int, tag: int = 0) -> None:
        """Send a C-contiguous array; returns when ``buf`` may be changed."""
        self._leaves(buf, dest)
        self.mpi.Send([buf, self._byte], dest, tag)

    def Recv(self, buf: NDArray, source: int, tag: int = 0) -> None:
        """Fill a C-contiguous array with the message from ``source``, which fits exactly."""
        self.mpi.Recv([buf, self._byte], source, tag)

    def Sendrecv(
        self,
        sendbuf: NDArray,
        dest: int,
        sendtag: int = 0,
        *,
        recvbuf: NDArray,
        source: int,
        recvtag: int = 0,
    ) -> None:
        """Send one array and receive another at the same time; the two do not overlap."""
        self._leaves(sendbuf, dest)
        self.mpi.Sendrecv(
            [sendbuf, self._byte], dest, sendtag, [recvbuf, self._byte], source, recvtag
        )

    def Isend(self, buf: NDArray, dest: int, tag: int = 0) -> MPI.Request:
        """Start to send; ``buf`` may be changed after the request's ``Wait``."""
        self._leaves(buf, dest)
        return self.mpi.Isend([buf, self._byte], dest, tag)

    def Irecv(self, buf: NDArray, source: int, tag: int = 0) -> MPI.Request:
        """Start to receive; ``buf`` is full after the request's ``Wait``."""
        return self.mpi.Irecv([buf, self._byte], source, tag)

    @staticmethod
    def wait(requests: Iterable[MPI.Request]) -> None:
        """Wait until all of these sends and receives are done."""
        for request in requests:
            request.Wait()

    def purpose(self, purpose: str) -> AbstractContextManager[None]:
        """Enter the messages sent inside the ``with`` block under this word in the ledger."""
        return self.ledger.entered_as(purpose)

    # --------------------------------------------- the library's own collectives, counted apart

    def Allreduce(self, sendbuf: Any, recvbuf: NDArray, op: MPI.Op | None = None) -> None:
        """MPI's all-reduce (a sum unless ``op`` is given); ``sendbuf`` may be `IN_PLACE`."""
        self.ledger.called("allreduce", recvbuf.nbytes)
        self.mpi.Allreduce(sendbuf, recvbuf, op or self._sum)

    def Reduce_scatter(
        self, sendbuf: NDArray, recvbuf: NDArray, counts: Any, op: MPI.Op | None = None
    ) -> None:
        """MPI's reduce-scatter of blocks of ``counts`` elements."""
        self.ledger.called("reduce_scatter", sendbuf.nbytes)
        self.mpi.Reduce_scatter(sendbuf, recvbuf, counts, op or self._sum)

    def Allgather(self, sendbuf: Any, recvbuf: NDArray) -> None:
        """MPI's all-gather of equal blocks; ``sendbuf`` may be `IN_PLACE`."""
        self.ledger.called("allgather", recvbuf.nbytes)
        if sendbuf is not self.IN_PLACE:
            sendbuf = [sendbuf, self._byte]
        self.mpi.Allgather(sendbuf, [recvbuf, self._byte])

    def Allgatherv(self, sendbuf: Any, recvbuf: NDArray, counts: Any) -> None:
        """MPI's all-gather of blocks of ``counts`` elements; ``sendbuf`` may be `IN_PLACE`."""
        self.ledger.called("allgather", recvbuf.nbytes)
        size = recvbuf.itemsize
        counts = [int(count) * size for count in counts]
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        if sendbuf is not self.IN_PLACE:
            sendbuf = [sendbuf, self._byte]
        self.mpi.Allgatherv(sendbuf, [recvbuf, counts, starts, self._byte])

    def Bcast(self, buf: NDArray, root: int = 0) -> None:
        """MPI's broadcast."""
        self.ledger.called("broadcast", buf.nbytes)
        self.mpi.Bcast([buf, self._byte], root)

    def Reduce(
        self, sendbuf: Any, recvbuf: NDArray | None, op: MPI.Op | None = None, root: int = 0
    ) -> None:
        """MPI's reduction to one rank; the root's ``sendbuf`` may be `IN_PLACE`."""
        self.ledger.called("reduce", recvbuf.nbytes if recvbuf is not None else sendbuf.nbytes)
        self.mpi.Reduce(sendbuf, recvbuf, op or self._sum, root)

    # ------------------------------------------------------------ control traffic, not counted

    def allgather_object(self, obj: Any) -> list[Any]:
        """Return everybody's object, by rank."""
        return self.mpi.allgather(obj)

    def bcast_object(self, obj: Any, root: int = 0) -> Any:
        """Return the root's object on all ranks."""
        return self.mpi.bcast(obj, root)

    def barrier(self) -> None:
        """Wait until all members are here."""
        self.mpi.Barrier()

    # -------------------------------------------------------------------------------- work space

    def scratch(self, n: int, dtype: DTypeLike, slot: int = 0) -> NDArray:
        """Return a work array of n elements, its contents undefined.

        It is a view of memory that this communicator keeps and enlarges when needed, so that an
        algorithm called again and again allocates nothing.  A slot has one use at a time: the
        next call with the same slot returns the same memory.
        """
        dtype = np.dtype(dtype)
        nbytes = n * dtype.itemsize
        memory = self._slots.get(slot)
        if memory is None or memory.size < nbytes:
            memory = self._slots[slot] = np.empty(nbytes, np.uint8)
        return memory[:nbytes].view(dtype)

    # -------------------------------------------------------------------------- sub-communicators

    def split(self, color: int | None, key: int | None = None) -> Communicator | None:
        """Return the communicator of the members with this rank's color; None for color None.

        Members are ordered by key (by default their rank here).  Nodes and the ledger are those
        of this communicator.  Collective.
        """
        key = self.rank if key is None else key
        mpi = self.mpi.Split(self._undefined if color is None else color, key)
        if color is None:
            return None
        group, parent = mpi.Get_group(), self.mpi.Get_group()
        ranks = group.Translate_ranks(list(range(mpi.size)), parent)
        group.Free(), parent.Free()
        part = Communicator.__new__(Communicator)
        part._set(
            mpi,
            tuple(self.members[r] for r in ranks),
            tuple(self.nodes[r] for r in ranks),
            self.ledger,
        )
        part._owned = True
        return part

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
            assert within is not None
            assert across is not None
            self._levels = within, across
        return self._levels

    def free(self) -> None:
        """Give back the communicators made by `levels`, and this one if it came from `split`."""
        for level in self._levels or ():
            level.free()
        self._levels = None
        self._slots.clear()
        if self._owned:
            self.mpi.Free()


def real_nodes(mpi_comm: MPI.Comm) -> tuple[int, ...]:
    """Return the number of each rank's node, nodes numbered by their lowest rank.  Collective."""
    from mpi4py import MPI

    shared = mpi_comm.Split_type(MPI.COMM_TYPE_SHARED, mpi_comm.rank)
    lowest = shared.bcast(mpi_comm.rank)
    shared.Free()
    everyones = mpi_comm.allgather(lowest)
    number = {rank: node for node, rank in enumerate(sorted(set(everyones)))}
    return tuple(number[rank] for rank in everyones)
