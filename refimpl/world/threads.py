"""Ranks as threads of one process: `spawn(nodes, body)` runs body(comm) on every rank.

A `Loopback` is a `Communicator` whose messages go through queues instead of MPI.  It counts as
the real one does, so that an algorithm can be tried at many world sizes, lengths and nodes in
little time, and golden values can be written without MPI; tests/parallel shows that the
algorithms also run on MPI.  Sends are buffered: what would deadlock for want of a buffer shows
only there.

The messages and their contents do not depend on how threads are scheduled, since every receive
names its source.  No more does a deadlock: it is when all ranks that have not ended wait, and not
when one has waited for long.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

from refimpl.world.communicator import Communicator
from refimpl.world.ledger import Ledger


class Deadlock(Exception):
    """All ranks that have not ended wait for messages, and so none will come."""


class Done:
    """A request that is over."""

    def Wait(self):
        """Do nothing."""


class Later:
    """A request whose work is done when somebody waits for it."""

    def __init__(self, action):
        self.Wait = action


class Post:
    """The messages on their way, and who watches them: watch(comm, dest, buf) at every send.

    A key is (context, kind, source, receiver): only the receiver's thread waits for it.
    """

    def __init__(self, ranks: int, watch: Callable[[Loopback, int, Any], None] | None) -> None:
        self.ranks, self.watch = ranks, watch  # ranks that have not ended
        self.queues: defaultdict[Any, SimpleQueue] = defaultdict(SimpleQueue)
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


class Loopback(Communicator):
    """One rank's end; what `Communicator` documents."""

    def __init__(self, post, context, rank, members, nodes, ledger):
        self._place(rank, members, nodes, ledger)
        self.post, self.context, self.splits = post, context, 0

    def _put(self, kind, item, dest):
        self.post.put((self.context, kind, self.rank, dest), item)

    def _get(self, kind, source):
        return self.post.get((self.context, kind, source, self.rank))

    def Send(self, buf, dest, tag=0):
        assert buf.flags.c_contiguous
        self._leaves(buf, dest)
        if self.post.watch is not None:
            self.post.watch(self, dest, buf)
        self._put(tag, buf.tobytes(), dest)

    def Recv(self, buf, source, tag=0):
        message = self._get(tag, source)
        assert len(message) == buf.nbytes, (len(message), buf.nbytes)
        buf.reshape(-1)[:] = np.frombuffer(message, buf.dtype)

    def Sendrecv(self, sendbuf, dest, sendtag=0, *, recvbuf, source, recvtag=0):
        assert not np.shares_memory(sendbuf, recvbuf)
        self.Send(sendbuf, dest, sendtag)
        self.Recv(recvbuf, source, recvtag)

    def Isend(self, buf, dest, tag=0):
        self.Send(buf, dest, tag)
        return Done()

    def Irecv(self, buf, source, tag=0):
        return Later(lambda: self.Recv(buf, source, tag))

    def allgather_object(self, obj):
        for rank in range(self.size):
            self._put("object", obj, rank)
        return [self._get("object", rank) for rank in range(self.size)]

    def bcast_object(self, obj, root=0):
        return self.allgather_object(obj)[root]

    def barrier(self):
        self.allgather_object(None)

    def split(self, color, key=None):
        self.splits += 1
        everyones = self.allgather_object((color, self.rank if key is None else key))
        if color is None:
            return None
        ranks = [r for r in range(self.size) if everyones[r][0] == color]
        ranks.sort(key=lambda r: (everyones[r][1], r))
        return Loopback(
            self.post,
            (self.context, self.splits, color),
            ranks.index(self.rank),
            tuple(self.members[r] for r in ranks),
            tuple(self.nodes[r] for r in ranks),
            self.ledger,
        )

    def free(self):
        pass


def spawn(
    nodes: Sequence[int],
    body: Callable[[Loopback], Any],
    watch: Callable[[Loopback, int, Any], None] | None = None,
) -> list[Any]:
    """Run body(comm) on len(nodes) ranks that lie on these nodes; return what they return.

    ``watch(comm, dest, buf)`` is called at every send, in the sender's thread.  An error of any
    rank is raised here.

    >>> spawn((0, 0, 0), lambda comm: comm.allgather_object(comm.rank))
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    members, post = tuple(range(len(nodes))), Post(len(nodes), watch)
    returned: list[Any] = [None] * len(nodes)
    errors: list[BaseException] = []

    def run(rank):
        try:
            returned[rank] = body(Loopback(post, (), rank, members, tuple(nodes), Ledger()))
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
    return returned
