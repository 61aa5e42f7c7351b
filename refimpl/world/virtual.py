"""Virtual time: every rank has a clock, which its messages and its computing move.

`Network` is a `Post` for `threads.spawn`: the program is the real one, on ranks that are threads,
and what it sends arrives; only how long it takes is worked out and not measured::

    computing            `compute` moves the rank's clock; of added and copied bytes by gamma
    inside a node        a message takes alpha + m beta.  For so long it holds the sender's way out
                         and the receiver's way in; who comes later waits for both
    between two nodes    a message takes alpha, and then its m bytes go over the sender's link out
                         and the receiver's link in.  A node has one of each for all its ranks, and
                         x messages on a link share it alike: a byte takes x beta, with the larger
                         x of the two links
    when                 a message moves when sender and receiver have both started; both have it
                         behind them when it is there.  To start takes no time
    objects, barrier     all go on when the last has come, and nothing moves

One rank runs at a time, always the one whose clock is least.  So what happens does not depend on
how threads are scheduled: equal programs give equal times, to the last bit.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from refimpl.world.shared import Flow, Message, Shared
from refimpl.world.threads import Deadlock, OverThreads, Post, Request

Meeting = Callable[[list[Any]], None]  # done with what all bring while all wait; sets clocks


class Spent(NamedTuple):
    """What a rank's clock has gone through, in seconds."""

    compute: float = 0.0
    moving: float = 0.0
    waiting: float = 0.0


class Network(Post):
    """The clocks of ranks that lie on these nodes, and what is on its way between them.

    ``intra`` and ``inter`` are (alpha, beta): seconds of a message, and of a byte; ``gamma`` those
    of a byte that is added.  A byte that is sent or added stands for ``scale``.  ``hosts``: a
    number for each rank; those with the same are threads of one process, which share its ways out
    and in, and talk to each other in no time.

    Attributes
    ----------
    clock : list of float
        Every rank's, in seconds.
    spent : list of Spent
        What these consist of.  A rank waits until both ends of a message have started; after that
        it moves, or is held up by others that do.
    """

    def __init__(
        self,
        nodes: Sequence[int],
        intra: tuple[float, float],
        inter: tuple[float, float],
        scale: float = 1.0,
        hosts: Sequence[int] | None = None,
        gamma: float = 0.0,
    ) -> None:
        super().__init__(len(nodes))
        self._host = tuple(range(len(nodes)) if hosts is None else hosts)
        self.nodes, self.scale, self.gamma = tuple(nodes), scale, gamma
        self.intra, self.inter = intra, inter
        self.clock, self.spent = [0.0] * len(nodes), [Spent()] * len(nodes)
        self._way_out, self._way_in = [0.0] * len(nodes), [0.0] * len(nodes)  # free from then on
        self._links = Shared(inter[1], self._at)
        self._boxes: defaultdict[Any, deque[Message]] = defaultdict(deque)  # one end has started
        self._meetings: defaultdict[Any, dict[int, Any]] = defaultdict(dict)
        # What happens next: (time, number, a rank whose turn it is or what is to be done then).
        self._agenda: list[tuple[float, int, int | Callable[[float], None]]] = []
        self._number = count()
        self._turn = [threading.Lock() for _ in nodes]
        self._here: set[int] = set()
        self._dead = False
        for rank, turn in enumerate(self._turn):
            turn.acquire()
            self._at(0.0, rank)

    # ------------------------------------------------------------------------ whose turn it is

    def transport(self, rank: int) -> OverVirtual:
        """Return a rank's end."""
        return OverVirtual(self, rank, tuple(range(self.ranks)))

    def enter(self, rank: int) -> None:
        """Wait for the first turn, which comes when all are here."""
        with self.lock:
            self._here.add(rank)
            last = len(self._here) == len(self.nodes)
        if last:
            self._pass_on(rank)
        else:
            self._turn[rank].acquire()

    def end(self, rank: int) -> None:
        """Say that a rank has ended: it sends nothing more."""
        with self.lock:
            self._here.discard(rank)
        if self._here and not self._dead:
            self._pass_on(None)

    def _at(self, time: float, what: int | Callable[[float], None]) -> None:
        heappush(self._agenda, (time, next(self._number), what))

    def _pass_on(self, rank: int | None) -> None:
        """Do what is next, until it is a rank's turn; return when it is this one's."""
        while self._agenda and not self._dead:
            time, _, what = heappop(self._agenda)
            if not isinstance(what, int):
                what(time)
                continue
            self.clock[what] = time
            if what == rank:
                return
            self._turn[what].release()
            if rank is not None:
                self._turn[rank].acquire()
                self._live()
            return
        if not self._dead:  # nothing will happen any more, and all wait
            self._dead = True
            for other in self._here - {rank}:
                self._turn[other].release()
        if rank is not None:
            self._live()

    def _live(self) -> None:
        if self._dead:
            raise Deadlock("all ranks that have not ended wait, and in vain")

    def _reach(self, rank: int) -> None:
        """Let happen all that comes before this rank's clock."""
        self._live()
        if self._agenda and self._agenda[0][0] < self.clock[rank]:
            self._at(self.clock[rank], rank)
            self._pass_on(rank)

    # --------------------------------------------------------------------------- what takes time

    def compute(self, rank: int, seconds: float) -> None:
        """Let a rank compute for so long."""
        self.clock[rank] += seconds
        self._spend(rank, Spent(compute=seconds))

    def _spend(self, rank: int, more: Spent) -> None:
        self.spent[rank] = Spent(*map(sum, zip(self.spent[rank], more, strict=True)))

    def post(self, kind: Any, source: int, dest: int, content: bytes | None = None) -> Message:
        """Start to send, or (without content) to receive; it moves when both have started.

        The next that is received is the first that was sent of these ``kind`` and ends.
        """
        sends = content is not None
        rank = source if sends else dest
        self._reach(rank)
        box = self._boxes[kind, source, dest]
        if not box or (box[0].content is not None) == sends:
            box.append(message := Message(content))
            return message
        message = box.popleft()
        message.content = content if sends else message.content
        message.begun = self.clock[rank]
        self._go(message, source, dest)
        return message

    def _go(self, message: Message, source: int, dest: int) -> None:
        """Let a message move."""
        assert message.content is not None
        now, nbytes = message.begun, len(message.content) * self.scale
        here, there = self.nodes[source], self.nodes[dest]
        out, into = self._host[source], self._host[dest]
        if out == into and source != dest:
            self._arrive(message, now)
        elif here == there:
            alpha, beta = self.intra
            done = max(now, self._way_out[out], self._way_in[into]) + (alpha + nbytes * beta)
            self._way_out[out] = self._way_in[into] = done
            self._arrive(message, done)
        else:
            flow = Flow(nbytes, (here, there), partial(self._arrive, message))
            self._at(now + self.inter[0], partial(self._links.join, flow))

    def _arrive(self, message: Message, done: float) -> None:
        message.done = done
        for rank in message.waiting:
            self._at(max(done, self.clock[rank]), rank)

    def wait(self, rank: int, message: Message) -> bytes:
        """Wait until a message is there, and return it."""
        self._live()
        before = self.clock[rank]
        if message.done is None:
            message.waiting.append(rank)
            self._pass_on(rank)
        assert message.done is not None and message.content is not None
        after = self.clock[rank] = max(before, message.done)
        moves = min(max(message.begun, before), after)
        self._spend(rank, Spent(moving=after - moves, waiting=moves - before))
        return message.content

    def meet(self, key: Any, ranks: Sequence[int], rank: int, obj: Any) -> list[Any]:
        """Return everybody's object when the last has come."""
        return self.gather(key, ranks, rank, obj, lambda objs: self._wait(ranks))

    def _wait(self, ranks: Sequence[int]) -> None:
        now = max(self.clock[rank] for rank in ranks)
        for rank in ranks:
            self._spend(rank, Spent(waiting=now - self.clock[rank]))
            self.clock[rank] = now

    def gather(
        self, key: Any, ranks: Sequence[int], rank: int, obj: Any, then: Meeting
    ) -> list[Any]:
        """Return everybody's object when the last has come, and has done ``then`` with them."""
        self._live()
        meeting = self._meetings[key]
        meeting[rank] = obj
        if len(meeting) < len(ranks):
            self._pass_on(rank)
        else:
            del self._meetings[key]
            then([meeting[other] for other in ranks])
            for other in ranks:
                if other != rank:
                    self._at(self.clock[other], other)
            self._reach(rank)
        return [meeting[other] for other in ranks]


class OverVirtual(OverThreads):
    """One rank's end among ``threads`` (their numbers in the world), in virtual time."""

    def __init__(
        self, network: Network, rank: int, threads: tuple[int, ...], context: Any = ()
    ) -> None:
        super().__init__(network, rank, threads, context=context)
        self.network, self.own, self.met = network, threads[rank], 0

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Request:
        assert buf.flags.c_contiguous
        kind, content = (self.context, tag), buf.tobytes()
        message = self.network.post(kind, self.own, self.threads[dest], content)
        return Request(lambda: self.network.wait(self.own, message))

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Request:
        message = self.network.post((self.context, tag), self.threads[source], self.own)

        def wait() -> None:
            content = self.network.wait(self.own, message)
            assert len(content) == buf.nbytes, (len(content), buf.nbytes)
            buf.reshape(-1)[:] = np.frombuffer(content, buf.dtype)

        return Request(wait)

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        self.start_send(buf, dest, tag).Wait()

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        self.start_receive(buf, source, tag).Wait()

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        assert not np.shares_memory(out, into)
        sending = self.start_send(out, dest, sendtag)
        receiving = self.start_receive(into, source, recvtag)
        receiving.Wait()
        sending.Wait()

    def worked(self, nbytes: int) -> None:
        self.network.compute(self.own, nbytes * self.network.scale * self.network.gamma)

    def objects(self, obj: Any) -> list[Any]:
        self.met += 1
        return self.network.meet((self.context, self.met), self.threads, self.own, obj)

    def part(self, context: tuple[Any, ...], ranks: list[int]) -> OverVirtual:
        threads = tuple(self.threads[rank] for rank in ranks)
        return OverVirtual(self.network, ranks.index(self.rank), threads, context)
