"""Ranks as threads of one process: `spawn(nodes, body)` runs body(comm) on every rank.

The `Communicator` is the one that runs over MPI; only its messages go through queues.  So an
algorithm can be tried at many world sizes, lengths and nodes in little time, and golden values can
be written without MPI; tests/parallel shows that the algorithms also run on MPI.  Sends are
buffered: what would deadlock for want of a buffer shows only there.

The messages and their contents do not depend on how threads are scheduled, since every receive
names its source.  No more does a deadlock: it is when all ranks that have not ended wait, and not
when one has waited for long.

A rank dies where its body raises `Dead`.  Then the others can do what `refimpl.world.mortal` asks
of them.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from refimpl.support.errors import UserError
from refimpl.world.communicator import Communicator

T = TypeVar("T")


class Deadlock(Exception):
    """All ranks that have not ended wait for messages, and so none will come."""


class Dead(BaseException):
    """What a rank raises that is to be as one whose process was killed."""


class Gone(Exception):
    """A message that will not come: its sender is dead, or its communicator was revoked."""


class Request:
    """A send that is over, or what is done when somebody waits for it."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.Wait = action


class Post:
    """The messages on their way.

    A key is (context, kind, source, receiver): only the receiver's thread waits for it.  A context
    begins with its ``root``, that of the communicator that it was split from; ``peer`` is a
    thread's number.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = self.alive = ranks  # alive: those that have not ended
        self.queues: defaultdict[Any, SimpleQueue[Any]] = defaultdict(SimpleQueue)
        # Keys whose queues are empty, and a rank waits at each: for whom, and in which root.
        self.awaited: dict[Any, tuple[int | None, Any]] = {}
        self.dead: set[int] = set()
        self.revoked: set[Any] = set()
        self.votes: dict[Any, tuple[tuple[int, ...], dict[int, bool]]] = {}
        self.lock = threading.RLock()

    def transport(self, rank: int) -> OverThreads:
        """Return a rank's end."""
        return OverThreads(self, rank, tuple(range(self.ranks)))

    def enter(self, rank: int) -> None:
        """Say that a rank begins, in its thread."""

    def put(self, key: Any, item: Any) -> None:
        """Send."""
        with self.lock:
            self.awaited.pop(key, None)
            self.queues[key].put((item,))

    def get(self, key: Any, peer: int | None = None, root: Any = None) -> Any:
        """Receive; raise `Deadlock` if nobody can send any more, `Gone` if the peer cannot."""
        with self.lock:
            queue = self.queues[key]
            if root in self.revoked or (queue.empty() and peer in self.dead):
                raise Gone
            if queue.empty():
                self.awaited[key] = peer, root
                self._check()
        message = queue.get()
        if message is None:
            _, _, source, receiver = key
            raise Deadlock(f"rank {receiver} waits for {source} in vain")
        if message is Gone:
            raise Gone
        return message[0]

    def end(self, rank: int) -> None:
        """Say that a rank has ended: it sends nothing more."""
        with self.lock:
            self.alive -= 1
            self._check()

    def die(self, rank: int) -> None:
        """Say that a rank is dead: who waits for it waits no longer."""
        with self.lock:
            self.dead.add(rank)
            self._wake(lambda peer, root: peer == rank)
            for key in list(self.votes):
                self._count(key)

    def revoke(self, root: Any) -> None:
        """Let nobody wait in the contexts of this root, now or later."""
        with self.lock:
            self.revoked.add(root)
            self._wake(lambda peer, within: within == root)

    def agree(
        self, key: Any, members: tuple[int, ...], rank: int, flag: bool
    ) -> tuple[bool, tuple[int, ...]]:
        """Return whether all who came say yes, and who lives: the same to all the living.

        Waits for the living; of the dead those count that had come.
        """
        with self.lock:
            self.votes.setdefault(key, (members, {}))[1][rank] = flag
            self._count(key)
        outcome: tuple[bool, tuple[int, ...]] = self.get((key, "votes", "all", rank))
        return outcome

    def _count(self, key: Any) -> None:
        members, votes = self.votes[key]
        living = tuple(one for one in members if one not in self.dead)
        if all(one in votes for one in living):
            del self.votes[key]
            for one in living:
                self.put((key, "votes", "all", one), (all(votes.values()), living))

    def _wake(self, waits: Callable[[int | None, Any], bool]) -> None:
        for key, what in list(self.awaited.items()):
            if waits(*what):
                del self.awaited[key]
                self.queues[key].put(Gone)

    def _check(self) -> None:
        """Wake all ranks if none is left that could wake another."""
        if len(self.awaited) == self.alive:
            for key in self.awaited:
                self.queues[key].put(None)
            self.awaited.clear()


class OverThreads:
    """One rank's end; what `Transport` documents.  There is nothing to free."""

    def __init__(
        self, post: Post, rank: int, threads: tuple[int, ...], root: Any = 0, context: Any = ()
    ) -> None:
        self.post, self.context, self.root, self.threads = post, (root, context), root, threads
        self.rank, self.size = rank, len(threads)
        self.splits = self.votes = 0

    def _put(self, kind: Any, item: Any, dest: int) -> None:
        self.post.put((self.context, kind, self.rank, dest), item)

    def _get(self, kind: Any, source: int) -> Any:
        key = self.context, kind, source, self.rank
        return self.post.get(key, self.threads[source], self.root)

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        assert buf.flags.c_contiguous
        self._put(tag, buf.tobytes(), dest)

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        message = self._get(tag, source)
        assert len(message) == buf.nbytes, (len(message), buf.nbytes)
        buf.reshape(-1)[:] = np.frombuffer(message, buf.dtype)

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        assert not np.shares_memory(out, into)
        self.send(out, dest, sendtag)
        self.receive(into, source, recvtag)

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Request:
        self.send(buf, dest, tag)
        return Request(lambda: None)

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Request:
        return Request(lambda: self.receive(buf, source, tag))

    def worked(self, nbytes: int) -> None:
        pass

    def objects(self, obj: Any) -> list[Any]:
        for rank in range(self.size):
            self._put("object", obj, rank)
        return [self._get("object", rank) for rank in range(self.size)]

    def object(self, obj: Any, root: int) -> Any:
        return self.objects(obj)[root]

    def barrier(self) -> None:
        self.objects(None)

    def split(self, color: int | None, key: int) -> tuple[OverThreads, list[int]] | None:
        self.splits += 1
        everyones = self.objects((color, key))
        if color is None:
            return None
        ranks = [r for r in range(self.size) if everyones[r][0] == color]
        ranks.sort(key=lambda r: (everyones[r][1], r))
        return self.part((self.context, self.splits, color), ranks), ranks

    def part(self, context: tuple[Any, ...], ranks: list[int]) -> OverThreads:
        """Return this rank's end among these of the ranks here."""
        threads = tuple(self.threads[rank] for rank in ranks)
        return OverThreads(self.post, ranks.index(self.rank), threads, self.root, context)

    def free(self) -> None:
        pass

    def revoke(self) -> None:
        self.post.revoke(self.root)

    def agree(self, flag: bool) -> bool:
        return self._vote(flag)[0]

    def shrunk(self) -> tuple[OverThreads, list[int]]:
        _, living = self._vote(True)
        ranks = [self.threads.index(thread) for thread in living]
        root = self.context, self.votes
        return OverThreads(self.post, ranks.index(self.rank), living, root), ranks

    def _vote(self, flag: bool) -> tuple[bool, tuple[int, ...]]:
        self.votes += 1
        key = self.context, self.votes
        return self.post.agree(key, self.threads, self.threads[self.rank], flag)

    def failed(self, error: BaseException) -> bool:
        return isinstance(error, Gone)


def spawn(
    nodes: Sequence[int], body: Callable[[Communicator], T], post: Post | None = None
) -> list[T]:
    """Run body(comm) on len(nodes) ranks that lie on these nodes; return what they return.

    An error of any rank is raised here; one that has died returns None.  Raises `UserError` where
    so many threads cannot be had.  ``post`` says how messages travel, for another way than at
    once: `refimpl.world.virtual.Network`.

    >>> spawn((0, 0, 0), lambda comm: comm.allgather_object(comm.rank))
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    members, way = tuple(range(len(nodes))), Post(len(nodes)) if post is None else post
    returned: dict[int, Any] = dict.fromkeys(members)
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        way.enter(rank)
        try:
            returned[rank] = body(Communicator.over(way.transport(rank), members, tuple(nodes)))
        except Dead:
            way.die(rank)
        except BaseException as error:
            errors.append(error)
        finally:
            way.end(rank)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in members]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as none_left:  # those that have started end with us
        raise UserError(
            f"cannot start a thread for each of {len(nodes)} ranks ({none_left}): take fewer "
            "ranks, or let this process have more threads and memory (ulimit -u, ulimit -v)"
        ) from none_left
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda e: isinstance(e, Deadlock)):
        raise error  # a deadlock only if it follows from no other error
    return [returned[rank] for rank in members]
