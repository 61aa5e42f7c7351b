"""Solutions to the exercises of docs/collectives.md.  Ranks are threads; no MPI is needed."""

import numpy as np

from refimpl import collectives
from refimpl.world.ledger import Count
from refimpl.world.threads import spawn

RING, TREE = collectives.get("ring"), collectives.get("tree")


def exercise_1():
    """A rank sends all chunks but its right neighbour's: 3 messages, 9 values of 12."""

    def body(comm, length):
        RING.allgather(comm, np.zeros(length, np.float32))
        return comm.ledger.totals()["intra"]

    assert spawn((0,) * 4, lambda comm: body(comm, 12)) == [Count(3, 4 * 9)] * 4
    # Chunks of 3, 3, 2 and 2 values; the right neighbours of ranks 0 to 3 have 3, 2, 2 and 3.
    sent = spawn((0,) * 4, lambda comm: body(comm, 10))
    assert [count.bytes for count in sent] == [4 * (10 - own) for own in (3, 2, 2, 3)]


def pass_on(comm, x, root=0):
    """Make x the root's everywhere: each rank waits for its left neighbour, and passes it on."""
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    if comm.rank != root:
        comm.Recv(x, left)
    if right != root:
        comm.Send(x, right)


def exercise_2():
    """The last rank has it after p - 1 steps, the tree's after lg p: (p - 1)(alpha + V beta)."""

    def body(comm):
        x = np.full(6, comm.rank, np.float32)
        pass_on(comm, x, root=2)
        return x.tolist(), comm.ledger.totals()["intra"].messages

    received, messages = zip(*spawn((0,) * 8, body), strict=True)
    assert received == ([2.0] * 6,) * 8 and sum(messages) == 7
    assert len(TREE.cost("broadcast", 6, (0,) * 8).steps) == 3
    # `chain` cuts x into m segments, which follow one another: m + p - 2 steps of V / m bytes.


def exercise_3():
    """The ring's one chunk is 1 + 2 + 3 + 0, the tree adds (0 + 1) + (2 + 3)."""
    addends = np.array([1, 2**24, -(2**24), 0])

    def body(comm, family, dtype):
        x = addends[comm.rank : comm.rank + 1].astype(dtype)
        family.allreduce(comm, x)
        return x.tolist()

    def sums(family, dtype):
        return spawn((0,) * 4, lambda comm: body(comm, family, dtype))

    assert sums(RING, np.float32) == [[1.0]] * 4  # the large ones cancel first
    assert sums(TREE, np.float32) == [[0.0]] * 4  # 1 + 2^24 is 2^24 in 24 bits
    # Integers do not care, which is what `--reduction exact` makes of a gradient.
    assert sums(RING, np.int64) == sums(TREE, np.int64) == [[1]] * 4
