"""The exchange: every rank gets every rank's message, and adds them up.

Messages have unequal lengths, which nobody knows beforehand, so two rings follow one another:

    1. all-gather of the lengths, one int64 per rank;
    2. the messages go round; each is counted while it travels on.

Every rank sees all messages, its own included (a rank that applied its own gradient instead of
what it sent would drift away from the others), and holds two of them: one that it passes on, and
one that arrives.  Ranks see them in different orders, and the sum is an integer for every value.
So all ranks end with the same sum, to the last bit.

Packed signs cannot be added on their way, so a ring all-gather is the best there is: each rank
receives the sum of all other messages.  That grows with the g ranks of the group, where a dense
all-reduce stays below 2 P values; the exchange wins while g m < 2 P, for m entries each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import ring
from refimpl.collectives.chunks import Call
from refimpl.collectives.cost import Cost
from refimpl.methods.gradient.gtc import wire
from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.methods.gradient.gtc.threshold import Counts

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

LENGTH = np.dtype(np.int64)


class Exchanged(NamedTuple):
    """What an exchange was: this rank's format and bytes, and the entries of every rank."""

    format: str
    bytes: int
    entries: tuple[int, ...]


def everyones_lengths(comm: Communicator, nbytes: int, n: int) -> list[int]:
    """Return the bytes of all ranks' messages for n values, by rank, or refuse them.

    Cost per rank: p - 1 messages of 8 bytes.
    """
    lengths = np.zeros(comm.size, LENGTH)
    lengths[comm.rank] = nbytes
    ring.allgather(comm, lengths)
    least, most = wire.limits(n)
    if not ((lengths >= least) & (lengths <= most)).all():
        raise MessageError(f"lengths of GTC messages for {n} values: {lengths.tolist()} bytes")
    found: list[int] = lengths.tolist()
    return found


def exchange(
    comm: Communicator,
    words: NDArray[np.uint32],
    tau: float,
    counts: Counts,
    out: np.ndarray,
    wanted: str = "auto",
) -> Exchanged:
    """Set ``out`` (n,) to the sum of all ranks' messages: counts times tau, the same bits on all.

    Parameters
    ----------
    comm : Communicator
        All of its ranks call, with out of the same length and dtype and the same tau.
    words : (entries,) uint32
        What this rank sends, from `threshold.encode`.
    tau : float
        The threshold, in the units of ``out``.
    counts : Counts
        Of n values and at least p terms; empty before and after.
    wanted : str
        One of `wire.CHOICES`.

    Raises
    ------
    MessageError
        If a message is damaged; ``out`` is not changed.  All ranks see the same bytes, so all
        of them raise, the error of the lowest of such ranks.

    Notes
    -----
    Cost per rank: p - 1 messages of 8 bytes, and p - 1 messages that are all messages but its
    right neighbour's; `cost` gives it exactly.  Memory: two messages, and what decoding one takes.
    """
    n, form = out.size, wire.choose(words, out.size, wanted)
    lengths = everyones_lengths(comm, wire.size(words, n, form), n)
    longest, mine = max(lengths), lengths[comm.rank]
    held = comm.scratch(longest, np.uint8), comm.scratch(longest, np.uint8, slot=1)
    comm.events.tell("message", wire.encode(words, n, tau, form, out=held[0][:mine]))
    entries, wrong = [0] * comm.size, {}
    for rank, message in ring.passed_on(comm, held, lengths):
        try:
            header, theirs = wire.decode(message, n, tau)
        except MessageError as error:
            wrong[rank] = error  # raised when everybody has it: who stops now stops the ring
        else:
            counts.add(theirs)
            entries[rank] = header.entries
    if wrong:
        counts.clear()
        raise wrong[min(wrong)]
    counts.total(tau, out)
    return Exchanged(form, mine, tuple(entries))


def cost(lengths: Sequence[int], nodes: tuple[int, ...]) -> Cost:
    """Return the cost of an exchange of messages of these lengths, by rank, headers included.

    >>> cost([104, 24, 64], nodes=(0, 0, 0)).sent_by(2)["intra"]
    Count(messages=4, bytes=104)
    """
    each = np.full(len(lengths), LENGTH.itemsize)
    rings = [Call(sizes, nodes) for sizes in (each, np.asarray(lengths))]
    return Cost([step for call in rings for step in ring.allgather_steps(call)], nodes, itemsize=1)
