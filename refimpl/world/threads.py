"""Ranks as threads of one process: `spawn(nodes, body)` runs body(comm) on every rank.

The `Communicator` is the one that runs over MPI; only its messages go through queues.  So an
algorithm can be tried at many world sizes, lengths and nodes in little time, and golden values can
be written without MPI; tests/parallel shows that the algorithms also run on MPI.  Sends are
buffered: what would deadlock for want of a buffer shows only there.

The messages and their contents do not depend on how threads are scheduled, since every receive
names its source.  No more does a deadlock: it is when all ranks that have not ended wait, and not
when one has waited for long.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from refimpl.world.communicator import Communicator

T = TypeVar("T")


class Deadlock(Exception):
    """All ranks that have not ended wait for messages, and so none will come."""


class Request:
    """A send that is over, or a receive that is made when somebody waits for it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.Wait = action


class Post:
    """The messages on their way.

    A key is (context, kind, source, receiver): only the receiver's thread waits for it.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks  # that have not ended
        self.queues: defaultdict[Any, SimpleQueue[Any]] = defaultdict(SimpleQueue)
        self.awaited: set[Any] = set()  # their queues are empty, and a rank waits at each
        self.lock = threading.Lock()

    def put(self, key: Any, item: Any) -> None:
        """Send."""
        with self.lock:
            self.awaited.discard(key)
            self.queues[key].put((item,))

    def get(self, key: Any) -> Any:
        """Receive; raise `Deadlock` if nobody can send any more."""
        with self.lock:
            queue = self.queues[key]
            if queue.empty():
                self.awaited.add(key)
                self._check()
        message = queue.get()
        if message is None:
            _, _, source, receiver = key
            raise Deadlock(f"rank {receiver} waits for {source} in vain")
        return message[0]

    def end(self) -> None:
        """Say that a rank has ended: it sends nothing more."""
        with self.lock:
            self.ranks -= 1
            self._check()

    def _check(self) -> None:
        """Wake all ranks if none is left that could wake another."""
        if len(self.awaited) == self.ranks:
            for key in self.awaited:
                self.queues[key].put(None)
            self.awaited.clear()


class OverThreads:
    """One rank's end; what `Transport` documents.  There is nothing to free."""

    def __init__(self, post: Post, context: tuple[Any, ...], rank: int, size: int) -> None:
        self.post, self.context, self.rank, self.size = post, context, rank, size
        self.splits = 0

    def _put(self, kind: Any, item: Any, dest: int) -> None:
        self.post.put((self.context, kind, self.rank, dest), item)

    def _get(self, kind: Any, source: int) -> Any:
        return self.post.get((self.context, kind, source, self.rank))

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
        context = self.context, self.splits, color
        return OverThreads(self.post, context, ranks.index(self.rank), len(ranks)), ranks

    def free(self) -> None:
        pass


def spawn(nodes: Sequence[int], body: Callable[[Communicator], T]) -> list[T]:
    """Run body(comm) on len(nodes) ranks that lie on these nodes; return what they return.

    An error of any rank is raised here.

    >>> spawn((0, 0, 0), lambda comm: comm.allgather_object(comm.rank))
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    members, post = tuple(range(len(nodes))), Post(len(nodes))
    returned: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            returned[rank] = body(
                Communicator.over(OverThreads(post, (), rank, len(nodes)), members, tuple(nodes))
            )
        except BaseException as error:
            errors.append(error)
        finally:
            post.end()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda e: isinstance(e, Deadlock)):
        raise error  # a deadlock only if it follows from no other error
    return [returned[rank] for rank in members]
