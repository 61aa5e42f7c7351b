"""What ranks do is told where it happens: each event begins and ends, and only if it is heard."""

import numpy as np
import pytest
from listeners import Heard
from loopback import spawn

from refimpl.world import events
from refimpl.world.events import KINDS, Event, Events, Listener
from refimpl.world.ledger import Ledger


def told(nodes, body, *kinds):
    """Return what each rank tells of these kinds while it runs body(comm)."""

    def listening(comm):
        with comm.events.listen(heard := Heard(*kinds)):
            body(comm)
        return heard.log

    return spawn(nodes, listening)


def plain(log):
    """Return a log without values, each event with "begin" or "end" before it."""
    return [(what, *event[:-1]) for what, event in log]


def exchange(comm):
    other, x = 1 - comm.rank, np.arange(3.0)
    if comm.rank == 0:
        comm.Send(x, other, 7)
    else:
        comm.Recv(x, other, 7)
    with comm.purpose("models"):
        comm.Sendrecv(x, other, recvbuf=np.empty(3), source=other)


def test_blocking_calls_tell_begin_and_end_of_what_they_do():
    zero, one = told((0, 1), exchange, "send", "receive", "wait")
    blocking = "other", 1, 24, "inter", 7
    both = "models", 1, 24, "inter", 0
    assert plain(zero) == [
        ("begin", "send", "", *blocking),
        ("end", "send", "", *blocking),
        ("begin", "send", "", *both),
        ("begin", "receive", "", *both),
        ("end", "receive", "", *both),
        ("end", "send", "", *both),
    ]
    assert [entry[:3] for entry in plain(one)[:2]] == [
        ("begin", "receive", ""),
        ("end", "receive", ""),
    ]
    assert {event.peer for _, event in one} == {0}


def test_a_start_is_told_and_then_its_wait_with_the_purpose_of_the_start():
    def body(comm):
        x, y = np.full(2, comm.rank), np.empty(2, int)
        with comm.purpose("gradients"):
            started = [comm.Irecv(y, 1 - comm.rank, 3), comm.Isend(x, 1 - comm.rank, 3)]
        comm.wait(started)

    zero, _ = told((0, 0), body, "send", "receive", "wait")
    what = "gradients", 1, 16, "intra", 3
    assert plain(zero) == [
        (side, kind, name, *what)
        for kind, name in (
            ("receive", ""),
            ("send", ""),
            ("wait", "receive"),
            ("wait", "send"),
        )
        for side in ("begin", "end")
    ]


def test_a_received_array_is_full_at_the_end_and_not_before():
    class Full(Listener):
        kinds = frozenset({"receive", "wait"})

        def __init__(self):
            self.seen = []

        def begin(self, event):
            self.seen.append(event.value.tolist())

        end = begin

    def body(comm):
        if comm.rank == 0:
            comm.Send(np.array([5]), 1)
            comm.Send(np.array([6]), 1)
            return None
        with comm.events.listen(full := Full()):
            x = np.array([0])
            comm.Recv(x, 0)
            comm.wait([comm.Irecv(x, 0)])
        return full.seen

    assert spawn((0, 0), body)[1] == [[0], [5], [5], [5], [5], [6]]


def test_waiting_for_all_ranks_is_told_by_its_name():
    def body(comm):
        comm.barrier()
        comm.allgather_object(1)
        comm.bcast_object(2)

    for log in told((0, 0), body, "wait"):
        names = [event.name for what, event in log if what == "begin"]
        assert names == ["barrier", "objects", "object"]
        assert len(log) == 6 and {event.peer for _, event in log} == {-1}


@pytest.mark.parametrize("kinds", [(), ("receive",), ("phase",)])
def test_an_event_that_nobody_hears_is_not_made(kinds, monkeypatch):
    made = []
    monkeypatch.setattr(events, "Event", lambda *fields: made.append(fields[0]) or Event(*fields))

    def body(comm):
        exchange(comm)
        with comm.events.during("phase", "step"):
            comm.events.tell("loss", 1.0)

    told((0, 0), body, *kinds)
    assert set(made) == set(kinds)  # the ledger counts sends, and needs none for that


def test_an_error_ends_what_it_leaves_and_the_purpose():
    one, heard = Events(rank=0), Heard("phase")
    one.add(heard)
    with pytest.raises(ZeroDivisionError), one.purposed("models"), one.during("phase", "step"):
        raise ZeroDivisionError
    assert [what for what, _ in heard.log] == ["begin", "end"]
    assert heard.log[0][1].purpose == "models" and one.purpose == "other"

    class Lost(Exception):
        pass

    def body(comm):
        def lose(*_):
            raise Lost

        for name in ("send", "receive", "exchange", "start_send", "start_receive", "barrier"):
            setattr(comm._transport, name, lose)
        x, y = np.empty(1), np.empty(1)
        with comm.events.listen(heard := Heard("send", "receive", "wait")):
            for call in (
                lambda: comm.Send(x, 0),
                lambda: comm.Recv(x, 0),
                lambda: comm.Sendrecv(x, 0, recvbuf=y, source=0),
                lambda: comm.Isend(x, 0),
                lambda: comm.Irecv(x, 0),
                comm.barrier,
            ):
                with pytest.raises(Lost):
                    call()
        return heard.log

    (log,) = spawn((0,), body)
    begun, ended = ([id(e) for what, e in log if what == side] for side in ("begin", "end"))
    assert len(begun) == 7 and sorted(begun) == sorted(ended)


def test_parts_of_a_world_share_its_events_and_ledger():
    def body(comm):
        part = comm.split(comm.rank % 2, key=-comm.rank)
        assert part.events is comm.events and part.ledger is comm.ledger
        assert part.levels()[0].events is comm.events
        with comm.events.listen(heard := Heard("send")):
            part.Send(np.empty(1), 0)
        return heard.begun[0].peer, comm.events.rank

    ranks = spawn((0, 0, 1, 1), body)
    assert ranks == [(2, 0), (3, 1), (2, 2), (3, 3)]


def test_listeners_hear_their_kinds_while_they_listen():
    one, first, second = Events(rank=3), Heard("compute", "phase"), Heard("phase")
    with one.listen(first):
        with one.listen(second):
            one.end(one.begin("phase", "block"))
        one.end(one.begin("compute", "forward"))
        assert one.hears("phase") and not one.hears("send")
    assert one.begin("phase", "block") is None and not one.heard
    assert [event.name for event in first.begun] == ["block", "forward"]
    assert [event.name for event in second.begun] == ["block"]


def test_a_value_is_told_as_an_event_that_is_over_at_once():
    one, x = Events(rank=0), np.zeros(2)
    with one.listen(heard := Heard("value")):
        one.tell("sum", x)
    (_, begun), (_, ended) = heard.log
    assert begun is ended and begun.value is x and begun[:2] == ("value", "sum")


def test_a_listener_to_an_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="sends"):
        Events(rank=0).add(Heard("sends"))
    assert len(set(KINDS)) == len(KINDS)


def test_the_ledger_counts_sends_and_calls_of_the_library_and_nothing_else():
    one, ledger = Events(rank=0), Ledger()
    one.add(ledger)
    with one.purposed("models"):
        for kind in KINDS:
            one.end(one.begin(kind, "allreduce", peer=1, nbytes=10, link="inter"))
    assert ledger.counts == {("models", "inter"): [1, 10]}
    assert ledger.calls == {("models", "allreduce"): [1, 10]}
    ledger.clear()
    assert ledger.counts == ledger.calls == {}
