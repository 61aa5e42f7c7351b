"""A trace is what happened: slices that nest, every message with its arrow, waiting apart."""

import threading
from collections import Counter
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
from loopback import spawn

from refimpl import collectives
from refimpl.support import perfetto
from refimpl.support.errors import UserError
from refimpl.world import trace
from refimpl.world.trace import Clock, Recorder, Slice, Trace, aligned, apart


def read(path):
    """Return tracks by number, and per track its events: (time, type, name, starts, ends)."""
    found = perfetto.read(path.read_bytes())
    events = {
        number: [(e.at, e.kind, e.name, e.starts, e.ends) for e in track.edges]
        for number, track in found.items()
    }
    return {number: track[:2] for number, track in found.items()}, events


def program(path, steps=(1, 9), taken=0):
    def body(comm):
        with Trace(comm, path, steps, taken):
            for _ in range(3):
                with comm.events.during("phase", "step"):
                    with comm.events.during("compute", "forward a"):
                        vector = np.ones(10, np.float32)
                    with comm.purpose("gradients"):
                        collectives.get("ring").allreduce(comm, vector)
                        collectives.get("halving-doubling").allreduce(comm, vector)
        return comm.ledger.total(purpose="gradients").messages

    return body


def test_every_message_has_an_arrow_from_its_send_to_where_it_arrives(tmp_path):
    path = tmp_path / "t.pftrace"
    messages = spawn((0, 0, 1, 1), program(path))
    tracks, events = read(path)
    ranks = {number: name for number, (parent, name) in tracks.items() if parent is None}
    assert [name.split(",")[0] for name in ranks.values()] == [
        f"rank {r} (node {r // 2}" for r in range(4)
    ]
    starts, ends, kinds = Counter(), Counter(), {}
    for number, (parent, name) in tracks.items():
        if parent is None:
            continue
        depth, before = 0, 0
        for at, type_, title, out, into in events[number]:
            assert at >= before and type_ in (1, 2)
            before, depth = at, depth + (1 if type_ == 1 else -1)
            assert depth >= 0
            starts.update(out)
            ends.update(into)
            for arrow in out:
                assert name == "send" and title.startswith("gradients to ")
                kinds[arrow] = at
        assert depth == 0
    assert starts == ends == Counter(range(1, sum(messages) + 1))
    for number, (_, name) in tracks.items():
        for at, _, title, _, into in events[number]:
            for arrow in into:  # nothing arrives before it is sent
                assert name == "receive" and title.startswith("gradients from ")
                assert at >= kinds[arrow] - 100_000
    names = Counter(
        title
        for number, (_, name) in tracks.items()
        for _, type_, title, *_ in events[number]
        if type_ == 1 and name in ("steps", "collectives", "compute")
    )
    assert names["step"] == names["forward a"] == names["ring.allreduce"] == 12


def test_only_the_steps_that_were_asked_for_are_drawn(tmp_path):
    spawn((0, 0), program(tmp_path / "t", (12, 12), taken=10))
    tracks, events = read(tmp_path / "t")
    assert [
        sum(event[2] == "step" for event in events[number])
        for number, (_, name) in tracks.items()
        if name == "steps"
    ] == [1, 1]


def test_a_message_tells_its_micro_step_its_collective_and_the_step_of_it():
    def body(comm):
        with comm.events.listen(recorder := Recorder()), comm.events.during("phase", "step"):
            for _ in range(2):
                with comm.events.during("compute", "forward a"):
                    pass
                with comm.events.during("compute", "forward b"):
                    collectives.get("ring").allreduce(comm, np.ones(6))
            with (
                comm.events.during("phase", "evaluate"),
                comm.events.during("compute", "forward a"),
            ):
                collectives.get("tree").broadcast(comm, np.ones(6))
        return [(s.microstep, s.inside, s.turn) for s in recorder.slices if s.kind == "send"]

    ring = [(micro, "ring.allreduce", turn) for micro in (1, 2) for turn in range(4)]
    sent = spawn((0,) * 3, body)
    assert sent[0] == [*ring, (0, "tree.broadcast", 0), (0, "tree.broadcast", 1)]
    assert sent[2][: len(ring)] == ring


def test_perfettos_own_schema_reads_it(tmp_path):
    schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    spawn((0, 0), program(tmp_path / "t"))
    told = schema.Trace()
    told.ParseFromString((tmp_path / "t").read_bytes())
    assert sum(one.HasField("track_descriptor") for one in told.packet) == 14


def slice_of(kind, begin, end, **more):
    plain = dict.fromkeys(("name", "purpose", "link", "inside"), "")
    plain |= {"peer": 1, "nbytes": 4, "tag": 0, "step": 1, "message": 0}
    return Slice(**plain | {"kind": kind, "begin": begin, "end": end} | more)


@pytest.mark.parametrize(
    "sent, want",
    [
        (3.0, [("wait", 1.0, 3.0), ("receive", 3.0, 5.0)]),
        (0.5, [("receive", 1.0, 5.0)]),  # it was on its way
        (9.0, [("wait", 1.0, 5.0), ("receive", 5.0, 5.0)]),  # as far as clocks can tell
        (None, [("receive", 1.0, 5.0)]),
    ],
)
def test_waiting_lasts_until_the_peer_begins_to_send(sent, want):
    found = [(name, s.begin, s.end) for name, s in apart(slice_of("receive", 1.0, 5.0), sent)]
    assert found == want


def test_of_all_ping_pongs_the_shortest_says_how_clocks_stand(monkeypatch):
    """Rank 1 asks at 0, 20 and 30 and has an answer after 10, 2 and 8; at rank 0 it is 100."""
    own = threading.local()
    monkeypatch.setattr(trace, "ROUNDS", 3)
    monkeypatch.setattr(trace, "time", SimpleNamespace(perf_counter=lambda: next(own.ticks)))

    def body(comm):
        own.ticks = repeat(100.0) if comm.rank == 0 else iter([0.0, 0, 10, 20, 22, 30, 38])
        return trace.compare_clocks(comm)

    assert spawn((0, 0), body) == [Clock(100.0, 0.0, 0.0), Clock(21.0, 79.0, 1.0)]


def test_clocks_that_run_apart_are_brought_together():
    """This rank's runs 1 % slow, and was 100 s behind when it began."""
    mine = [slice_of("compute", 0.0, 1.0), slice_of("compute", 10.0, 20.0)]
    moved = aligned(mine, Clock(0.0, 100.0, 0), Clock(20.0, 100.2, 0))
    found = [at for one in moved for at in (one.begin, one.end)]
    assert found == pytest.approx([100, 101.01, 110.1, 120.2])


def test_what_there_is_no_room_for_is_counted(monkeypatch):
    monkeypatch.setattr(trace, "MOST", 5)
    recorder = Recorder()

    def body(comm):
        with comm.events.listen(recorder), comm.events.during("phase", "step"):
            for _ in range(10):
                with comm.events.during("compute", "x"):
                    pass

    spawn((0,), body)
    assert len(recorder.slices) == 5 and recorder.left_out == 6


def test_a_run_that_fails_writes_no_trace_and_one_that_cannot_be_written_is_told(tmp_path):
    def failing(comm):
        with Trace(comm, tmp_path / "t", (1, 1)):
            raise UserError("why")

    with pytest.raises(UserError, match="why"):
        spawn((0, 0), failing)
    assert not (tmp_path / "t").exists()
    with pytest.raises(UserError, match="nowhere"):
        spawn((0, 0), program(tmp_path / "nowhere" / "t"))
