"""Ranks of which some die: who waits for them hears of it, and the others agree and go on."""

import time

import numpy as np
import pytest

from refimpl import collectives
from refimpl.world.mortal import Mortals
from refimpl.world.threads import Dead, Gone, spawn


def received(comm, source):
    comm.Recv(np.zeros(1), source)


def test_who_waits_for_a_dead_rank_hears_of_it_and_who_waits_for_him_once_he_revokes():
    def body(comm):
        ranks = Mortals.of(comm)
        column = comm.split(0)
        if comm.rank == 2:
            time.sleep(0.05)
            raise Dead
        with pytest.raises(Gone) as error:
            received(column, comm.rank + 1 if comm.rank < 3 else 0)  # 1 waits for 2, 0 for 1
        assert ranks.failed(error.value) and not ranks.failed(ValueError())
        ranks.revoke()
        with pytest.raises(Gone):
            comm.barrier()
        return ranks.agree(comm.rank != 3), ranks.agree(True)

    assert spawn((0,) * 4, body) == [(False, True)] * 2 + [None, (False, True)]


def test_what_a_dead_rank_has_sent_arrives():
    def body(comm):
        if comm.rank == 0:
            comm.Send(np.ones(1), 1)
            raise Dead
        time.sleep(0.05)
        got = np.zeros(1)
        comm.Recv(got, 0)
        with pytest.raises(Gone):
            received(comm, 0)
        return float(got[0])

    assert spawn((0, 0), body) == [None, 1.0]


def test_those_that_live_keep_their_order_and_their_nodes_and_lose_more():
    def body(comm):
        ranks, seen = Mortals.of(comm), []
        for doomed in (0, 3):  # the ranks as they were in the beginning
            if comm.rank == doomed:
                raise Dead
            ranks.agree(True)
            ranks, living = ranks.shrunk()
            x = np.ones(5)
            collectives.get("ring").allreduce(ranks.comm, x)
            seen.append((living, ranks.comm.nodes, ranks.comm.rank, x[0]))
        part = ranks.part([2, 0])
        return seen, part and (part.rank, part.nodes, part.members)

    found = spawn((0, 0, 1, 1, 2), body)
    assert found[0] is None and found[3] is None
    assert found[1] == (
        [([1, 2, 3, 4], (0, 1, 1, 2), 0, 4.0), ([0, 1, 3], (0, 1, 2), 0, 3.0)],
        (1, (2, 0), (0, 1)),
    )
    assert found[2][1] is None and found[4][1] == (0, (2, 0), (0, 1))


def test_who_dies_before_the_vote_does_not_hold_it_up_and_who_voted_counts():
    def body(comm):
        ranks = Mortals.of(comm)
        if comm.rank == 0:
            raise Dead
        if comm.rank == 1:
            time.sleep(0.05)
        return ranks.agree(comm.rank == 1)

    assert spawn((0, 0, 0), body) == [None, False, False]
