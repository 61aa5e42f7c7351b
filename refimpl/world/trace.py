"""All ranks on one clock: what each did and when, for Perfetto's viewer.

    process per rank     tracks: steps, collectives, compute, send, receive, wait
    arrow                from each send to where the message is received

Waiting is drawn apart from moving: a rank that waits for a message waits until its peer begins to
send it, and what is left is the message's.  Clocks are compared by ping-pong with rank 0, before
and after: of `ROUNDS` the one that took least time, whose half bounds the error.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.support import perfetto
from refimpl.support.files import writing
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener

TRACKS = ("steps", "collectives", "compute", "send", "receive", "wait")
TRACK = {"phase": "steps", "collective": "collectives", "library": "collectives"}
MOST = 200_000  # events of a rank that are kept
ROUNDS = 16


class Slice(NamedTuple):
    """One event of a rank: its fields without the value, begin and end in seconds.

    ``step``: the training step, from 1, or 0 outside.  ``inside``: the innermost collective
    around it.  ``message``: of a send, or of what completes a receive, which of those with this
    peer and tag it is; -1 otherwise.  ``microstep``: from 1, or 0 outside.  ``turn``: of a send or
    a receive in a collective, how many of its kind were before it there.
    """

    kind: str
    name: str
    purpose: str
    peer: int
    nbytes: int
    link: str
    tag: int
    begin: float
    end: float
    step: int
    inside: str
    message: int
    microstep: int = 0
    turn: int = -1


class Recorder(Listener):
    """Keeps what one rank does in the steps from ``first`` to ``last``.

    ``left_out``: events that there was no room for, beyond ``most``.  ``clock`` tells the time.
    """

    kinds = frozenset({"send", "receive", "wait", "library", "collective", "compute", "phase"})

    def __init__(
        self,
        first: int = 1,
        last: int = 10**15,
        taken: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        most: int | None = None,
    ) -> None:
        self.first, self.last, self.step, self.clock = first, last, taken, clock
        self.most = MOST if most is None else most
        self.slices: list[Slice] = []
        self.left_out = 0
        self._open: list[tuple[Event, float, int, int, int]] = []
        self._inside: list[tuple[str, Counter[str]]] = [("", Counter())]
        self._microstep = 0
        self._lowest: str | None = None  # the layer with which a micro-step begins; "": not known
        self._sent: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._received: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._started: dict[int, int] = {}  # a buffer's identity -> which message fills it

    def begin(self, event: Event) -> None:
        """Note when an event begins.  Messages are numbered in all steps, on both ends alike."""
        kind, name, _, peer, _, _, tag, value = event
        message = turn = -1
        if kind in ("send", "receive") and len(self._inside) > 1:
            turn = self._inside[-1][1][kind]
            self._inside[-1][1][kind] += 1
        if kind == "send":
            message = self._sent[peer, tag]
            self._sent[peer, tag] += 1
        elif kind == "receive":
            message = self._started[id(value)] = self._received[peer, tag]
            self._received[peer, tag] += 1
        elif kind == "wait" and name == "receive":
            message = self._started.get(id(value), -1)
        elif kind == "phase":
            self.step += name == "step"
            self._microstep, self._lowest = 0, "" if name == "step" else None
        elif kind == "compute" and name.startswith("forward") and self._lowest in ("", name):
            self._microstep, self._lowest = self._microstep + 1, name
        elif kind == "collective":
            self._inside.append((name, Counter()))
        self._open.append((event, self.clock(), message, self._microstep, turn))

    def end(self, event: Event) -> None:
        """Keep it with its end, if it is one of the steps' and there is room."""
        now = self.clock()
        place = next(i for i in range(len(self._open) - 1, -1, -1) if self._open[i][0] is event)
        _, began, message, microstep, turn = self._open.pop(place)
        if event.kind == "collective":
            self._inside.pop()
        if not self.first <= self.step <= self.last:
            return
        if len(self.slices) >= self.most:
            self.left_out += 1
            return
        about = self.step, self._inside[-1][0], message, microstep, turn
        self.slices.append(Slice(*event[:-1], began, now, *about))


class Clock(NamedTuple):
    """How a rank's clock stands to rank 0's at a moment of its own: ``offset`` is to be added."""

    at: float
    offset: float
    error: float


def compare_clocks(comm: Communicator) -> Clock:
    """Return how this rank's clock stands to rank 0's.  Collective; a few messages per rank."""
    best = Clock(time.perf_counter(), 0.0, 0.0 if comm.rank == 0 else np.inf)
    stamp = np.zeros(1)
    with comm.purpose("control"):
        for rank in range(1, comm.size):
            for _ in range(ROUNDS):
                if comm.rank == 0:
                    comm.Recv(stamp, rank)
                    stamp[0] = time.perf_counter()
                    comm.Send(stamp, rank)
                elif comm.rank == rank:
                    sent = time.perf_counter()
                    comm.Send(stamp, 0)
                    comm.Recv(stamp, 0)
                    back = time.perf_counter()
                    middle, half = (sent + back) / 2, (back - sent) / 2
                    if half < best.error:
                        best = Clock(middle, float(stamp[0]) - middle, half)
    return best


class Trace:
    """Records a run on all ranks, inside its ``with`` block, and writes one file at its end.

    Collective.  ``steps``: the first and the last step that are drawn.  ``taken``: steps before.
    Nothing is written where the block is left by an error.
    """

    def __init__(
        self, comm: Communicator, path: Path, steps: tuple[int, int], taken: int = 0
    ) -> None:
        self.comm, self.path = comm, path
        self.recorder = Recorder(*steps, taken)

    def __enter__(self) -> Trace:
        self._first = compare_clocks(self.comm)
        self.comm.events.add(self.recorder)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.comm.events.remove(self.recorder)
        if kind is None:
            self._write()

    def _write(self) -> None:
        """Bring all ranks' slices to rank 0, one rank after the other, and draw them there."""
        comm, clocks = self.comm, (self._first, compare_clocks(self.comm))
        mine = aligned(self.recorder.slices, *clocks)
        everyones, about = [], []
        for rank in range(comm.size):
            told = (mine, max(clock.error for clock in clocks), self.recorder.left_out)
            slices, bound, left_out = comm.bcast_object(told if rank == comm.rank else None, rank)
            if comm.rank == 0:
                everyones.append(slices)
                node = comm.nodes[rank]
                more = f", {left_out:,} events left out" if left_out else ""
                about.append(f"rank {rank} (node {node}, clock within {1e6 * bound:.0f} us{more})")
        with together(comm):
            if comm.rank == 0:
                write(self.path, everyones, about)


def write(path: Path, everyones: Sequence[Sequence[Slice]], about: Sequence[str]) -> None:
    """Draw every rank's slices in a file; ``about`` is what the ranks are called."""
    with writing(path) as partial, partial.open("wb") as file:
        for packet in packets(everyones, about):
            file.write(packet)


def aligned(slices: Sequence[Slice], first: Clock, last: Clock) -> list[Slice]:
    """Return slices on rank 0's clock, which this rank's may run faster or slower than."""
    span = last.at - first.at
    drift = (last.offset - first.offset) / span if span > 0 else 0.0

    def moved(at: float) -> float:
        return at + first.offset + drift * (at - first.at)

    return [one._replace(begin=moved(one.begin), end=moved(one.end)) for one in slices]


def apart(one: Slice, sent: float | None) -> Iterator[tuple[str, Slice]]:
    """Yield a slice on its track; what completes a receive in two, waiting and moving.

    ``sent``: when the peer began to send the message that it waits for, if that is known.
    """
    completes = one.kind == "receive" or (one.kind == "wait" and one.name == "receive")
    if not completes or sent is None:
        yield TRACK.get(one.kind, one.kind), one
        return
    moving = min(max(sent, one.begin), one.end)
    if moving > one.begin:
        yield "wait", one._replace(end=moving, message=-1)
    yield "receive", one._replace(begin=moving)


def packets(everyones: Sequence[Sequence[Slice]], about: Sequence[str]) -> Iterator[bytes]:
    """Yield the packets of a trace: every rank's slices, and an arrow for each message."""
    sent = {
        (rank, one.peer, one.tag, one.message): one.begin
        for rank, slices in enumerate(everyones)
        for one in slices
        if one.kind == "send"
    }
    arrows = {message: number for number, message in enumerate(sent, 1)}
    start = min((one.begin for slices in everyones for one in slices), default=0.0)

    def nanoseconds(at: float) -> int:
        return max(0, round(1e9 * (at - start)))

    for rank, slices in enumerate(everyones):
        base = 1000 * (rank + 1)
        yield perfetto.process(base, rank + 1, about[rank])
        for place, name in enumerate(TRACKS, 1):
            yield perfetto.track(base + place, base, name, place)
        waited = {(one.peer, one.tag, one.message) for one in slices if one.kind == "wait"}
        drawn: defaultdict[str, list[Slice]] = defaultdict(list)
        for one in slices:
            key = one.peer, rank, one.tag, one.message
            if one.kind == "receive" and (one.peer, one.tag, one.message) in waited:
                continue  # a start, whose wait is drawn
            known = sent.get(key) if one.message >= 0 else None
            for name, part in apart(one, known):
                drawn[name].append(part)
        for place, name in enumerate(TRACKS, 1):
            edges: list[tuple[int, int, int, bytes]] = []
            for one in drawn[name]:
                begin, end = nanoseconds(one.begin), nanoseconds(one.end)
                outgoing, incoming = [], []
                if one.kind == "send":
                    outgoing = [arrows[rank, one.peer, one.tag, one.message]]
                elif name == "receive" and one.message >= 0:
                    key = one.peer, rank, one.tag, one.message
                    incoming = [arrows[key]] if key in arrows else []
                told = perfetto.begin(
                    begin, base + place, _title(one), name, _about(one), outgoing, incoming
                )
                edges.append((begin, 1, -end, told))
                edges.append(
                    (end, 0 if end > begin else 2, -begin, perfetto.end(end, base + place))
                )
            for _, _, _, told in sorted(edges, key=lambda edge: edge[:3]):
                yield told


def _title(one: Slice) -> str:
    """Return what a slice is called."""
    if one.kind in ("send", "receive") or one.name in ("send", "receive"):
        way = "to" if "send" in (one.kind, one.name) else "from"
        return f"{one.purpose} {way} {one.peer}"
    return one.name


def _about(one: Slice) -> dict[str, int | float | str]:
    """Return the arguments of a slice that say something."""
    told: dict[str, int | float | str] = {"step": one.step}
    if one.microstep:
        told["micro-step"] = one.microstep
    if one.peer >= 0:
        told |= {"bytes": one.nbytes, "peer": one.peer, "purpose": one.purpose, "link": one.link}
    if one.inside and one.kind != "collective":
        told["collective"] = one.inside
        if one.turn >= 0:
            told["step of the collective"] = one.turn
    return told
