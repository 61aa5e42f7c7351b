"""Ranks that are threads: a deadlock is noticed at once, and only where there is one."""

import time

import numpy as np
import pytest

from refimpl.support.errors import UserError
from refimpl.world.threads import Deadlock, spawn


def receive(comm, source):
    comm.Recv(np.zeros(1), source)


def send(comm, dest):
    comm.Send(np.ones(1), dest)


def test_ranks_that_wait_for_each_other_are_a_deadlock():
    with pytest.raises(Deadlock, match="in vain"):
        spawn((0,) * 3, lambda comm: receive(comm, (comm.rank + 1) % 3))


def test_waiting_for_a_rank_that_has_ended_is_a_deadlock():
    with pytest.raises(Deadlock):
        spawn((0, 0), lambda comm: receive(comm, 1) if comm.rank == 0 else None)


def test_a_rank_that_is_slow_is_no_deadlock():
    def body(comm):
        if comm.rank == 2:
            time.sleep(0.2)
            send(comm, 1)
        else:
            receive(comm, comm.rank + 1)
            if comm.rank == 1:
                send(comm, 0)

    spawn((0,) * 3, body)


def test_an_error_is_told_and_not_the_waiting_that_follows_from_it():
    def body(comm):
        if comm.rank == 1:
            raise ZeroDivisionError
        receive(comm, 1)

    with pytest.raises(ZeroDivisionError):
        spawn((0,) * 4, body)


def test_threads_that_cannot_be_had_are_told_with_a_remedy(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    with pytest.raises(UserError, match="for each of 3 ranks .*: take fewer ranks, or"):
        spawn((0,) * 3, lambda comm: None)
