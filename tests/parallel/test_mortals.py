"""Ranks that may die talk by messages alone, which any MPI has; their parts do not mix."""

import numpy as np
from mpi4py import MPI

from refimpl import collectives
from refimpl.world.mortal import Mortals, mortals


def test_parts_of_one_communicator_do_not_hear_each_other(world):
    comm = mortals(world.mpi, 2)
    n, rank = comm.size, comm.rank
    row, column = comm.split(rank // 2), comm.split(rank % 2, key=-rank)
    inner = row.split(0)
    want = {comm: range(n), row: range(rank // 2 * 2, n)[:2], column: range(rank % 2, n, 2)[::-1]}
    for part, members in [*want.items(), (inner, want[row])]:
        assert part.members == tuple(members) and part.members[part.rank] == rank
        assert part.allgather_object("x" * 99 * rank) == ["x" * 99 * one for one in members]
        total = np.full(5, rank, np.int64)
        collectives.get("ring").allreduce(part, total)
        assert (total == sum(members)).all()
    if row.size == 2:  # what was sent last in another part is received first
        peer, parts = rank ^ 1, (inner, row, comm)
        sent = [
            part.Isend(np.array([10.0 * rank + i]), part.members.index(peer))
            for i, part in enumerate(parts)
        ]
        for i, part in reversed(list(enumerate(parts))):
            got = np.zeros(1)
            part.Recv(got, part.members.index(peer))
            assert got[0] == 10 * peer + i
        comm.wait(sent)
    assert comm.split(None) is None and not comm._transport.family.kept
    comm.barrier()
    comm._transport.family.mpi.Free()


def test_an_error_of_mpis_may_be_a_death_whatever_it_calls_it(world):
    comm = mortals(world.mpi, None)
    ranks = Mortals.of(comm)
    for kind in (MPI.ERR_OTHER, MPI.ERR_INTERN):  # Open MPI's broadcast, of a child that died
        assert ranks.failed(MPI.Exception(kind)) and not ranks.failed(ValueError())
    comm._transport.family.mpi.Free()
