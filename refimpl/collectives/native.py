"""The MPI library's own collectives behind the same signatures: baseline and cross-check.

How they add, and in how many messages, is the library's business: the order of summation is not
documented and differs between libraries, sizes and versions.  The ledger enters each call and the
length of its vector, apart from the counted messages.
"""

from __future__ import annotations

from refimpl.collectives import chunks
from refimpl.collectives.chunks import Array, Offsets
from refimpl.world.communicator import Communicator


def allgather(comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
    """Fill every chunk of x with that of its owner, in place: ``MPI_Allgather``.

    Chunks of unequal length need ``MPI_Allgatherv``, which some libraries run much more slowly.
    """
    chunk = chunks.slices(x, comm.size, offsets)
    counts = [c.stop - c.start for c in chunk]
    if len(set(counts)) == 1:
        comm.Allgather(comm.IN_PLACE, x)
    else:
        comm.Allgatherv(comm.IN_PLACE, x, counts)


def reduce_scatter(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Sum x; return this rank's chunk of the sum, a view of x: ``MPI_Reduce_scatter``."""
    chunk = chunks.slices(x, comm.size, offsets)
    own = x[chunk[comm.rank]]
    # In place MPI would leave the chunk at the start of x, where it overlaps other chunks.
    summed = comm.scratch(own.size, x.dtype)
    comm.Reduce_scatter(x, summed, [c.stop - c.start for c in chunk])
    own[:] = summed
    return own


def allreduce(comm: Communicator, x: Array) -> None:
    """Replace x by its sum over the ranks, in place: ``MPI_Allreduce``."""
    comm.Allreduce(comm.IN_PLACE, x)


def alltoall(comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
    """Send chunk c of x to rank c; return what came for this rank, (p, n_r): ``MPI_Alltoallv``."""
    counts = [c.stop - c.start for c in chunks.slices(x, comm.size, offsets)]
    came = comm.scratch(comm.size * counts[comm.rank], x.dtype)
    comm.Alltoallv(x, counts, came)
    return came.reshape(comm.size, counts[comm.rank])


def broadcast(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace x by the root's, in place: ``MPI_Bcast``."""
    comm.Bcast(x, root)


def reduce(comm: Communicator, x: Array, root: int = 0) -> None:
    """Replace the root's x by the sum, in place; the others' is left alone: ``MPI_Reduce``."""
    if comm.rank == root:
        comm.Reduce(comm.IN_PLACE, x, root=root)
    else:
        comm.Reduce(x, None, root=root)
