"""The MPI library's own collectives, as a communicator has them.

Nobody can see their messages: each call is told as one event, and counted apart.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from refimpl.world.events import Events
from refimpl.world.transport import OverMPI, Transport

if TYPE_CHECKING:
    from mpi4py import MPI


class Library:
    """What only a communicator over MPI can do; ranks that are threads cannot."""

    events: Events
    _transport: Transport

    @property
    def _over_mpi(self) -> OverMPI:
        assert isinstance(self._transport, OverMPI), "only MPI has collectives of its own"
        return self._transport

    @property
    def mpi(self) -> MPI.Comm:
        """The communicator underneath.  What is sent through it is not counted."""
        return self._over_mpi.mpi

    @property
    def IN_PLACE(self) -> Any:
        """What stands for the other array where a collective works in place."""
        return self._over_mpi.in_place

    def _calling(self, operation: str, vector: np.ndarray) -> AbstractContextManager[None]:
        return self.events.during("library", operation, vector, vector.nbytes)

    def _bytes(self, buf: Any) -> Any:
        return buf if buf is self.IN_PLACE else [buf, self._over_mpi.byte]

    def _chunks(self, buf: np.ndarray, counts: Any) -> list[Any]:
        lengths = [int(count) * buf.itemsize for count in counts]
        return [buf, lengths, np.cumsum([0, *lengths[:-1]]), self._over_mpi.byte]

    def Allreduce(self, sendbuf: Any, recvbuf: np.ndarray) -> None:
        """MPI's all-reduce; ``sendbuf`` may be `IN_PLACE`."""
        with self._calling("allreduce", recvbuf):
            self.mpi.Allreduce(sendbuf, recvbuf)

    def Reduce_scatter(self, sendbuf: np.ndarray, recvbuf: np.ndarray, counts: Any) -> None:
        """MPI's reduce-scatter of chunks of ``counts`` elements."""
        with self._calling("reduce_scatter", sendbuf):
            self.mpi.Reduce_scatter(sendbuf, recvbuf, counts)

    def Allgather(self, sendbuf: Any, recvbuf: np.ndarray) -> None:
        """MPI's all-gather of equal chunks; ``sendbuf`` may be `IN_PLACE`."""
        with self._calling("allgather", recvbuf):
            self.mpi.Allgather(self._bytes(sendbuf), self._bytes(recvbuf))

    def Allgatherv(self, sendbuf: Any, recvbuf: np.ndarray, counts: Any) -> None:
        """MPI's all-gather of chunks of ``counts`` elements; ``sendbuf`` may be `IN_PLACE`."""
        with self._calling("allgather", recvbuf):
            self.mpi.Allgatherv(self._bytes(sendbuf), self._chunks(recvbuf, counts))

    def Alltoallv(self, sendbuf: np.ndarray, counts: Any, recvbuf: np.ndarray) -> None:
        """MPI's all-to-all of chunks of ``counts`` elements; equally long ones arrive."""
        theirs = [recvbuf.size // self.mpi.size] * self.mpi.size
        with self._calling("alltoall", sendbuf):
            self.mpi.Alltoallv(self._chunks(sendbuf, counts), self._chunks(recvbuf, theirs))

    def Bcast(self, buf: np.ndarray, root: int = 0) -> None:
        """MPI's broadcast."""
        with self._calling("broadcast", buf):
            self.mpi.Bcast(self._bytes(buf), root)

    def Reduce(self, sendbuf: Any, recvbuf: np.ndarray | None, root: int = 0) -> None:
        """MPI's reduction to one rank; the root's ``sendbuf`` may be `IN_PLACE`."""
        with self._calling("reduce", sendbuf if recvbuf is None else recvbuf):
            self.mpi.Reduce(sendbuf, recvbuf, root=root)
