"""The exchange: every rank gets every rank's message, and adds them up.

Messages have unequal lengths, which nobody knows beforehand, so two rings follow one another:

    1. all-gather of the lengths, one int64 per rank;
    2. all-gather of the messages end to end, cut where the lengths say.

All ranks then hold the same bytes.  Each decodes all of them in rank order, its own included (a
rank that applied its own gradient instead of what it sent would drift away from the others), and
counts the entries.  So all ranks end with the same sum, to the last bit.

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


def allgather(
    comm: Communicator, words: NDArray[np.uint32], n: int, tau: float, form: str
) -> list[NDArray[np.uint8]]:
    """Return the messages of all ranks, by rank: views of this communicator's scratch.

    Parameters
    ----------
    comm : Communicator
        All of its ranks call, with the same n and tau.
    words : (entries,) uint32
        What this rank sends.
    n, tau : int, float
        The length of the vector, and the threshold.
    form : str
        One of `wire.FORMATS`, this rank's own choice.

    Notes
    -----
    Cost per rank: p - 1 messages of 8 bytes, and p - 1 messages that are all messages but its
    right neighbour's; `cost` gives it exactly.
    """
    p, r = comm.size, comm.rank
    lengths = np.zeros(p, LENGTH)
    lengths[r] = wire.size(words, n, form)
    ring.allgather(comm, lengths)
    least, most = wire.limits(n)
    if not ((lengths >= least) & (lengths <= most)).all():
        raise MessageError(f"lengths of GTC messages for {n} values: {lengths.tolist()} bytes")
    cut = np.concatenate(([0], np.cumsum(lengths)))
    everyones = comm.scratch(int(cut[-1]), np.uint8)
    messages = [everyones[cut[i] : cut[i + 1]] for i in range(p)]
    wire.encode(words, n, tau, form, out=messages[r])
    ring.allgather(comm, everyones, offsets=cut)
    return messages


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
        of them raise.
    """
    form = wire.choose(words, out.size, wanted)
    messages = allgather(comm, words, out.size, tau, form)
    comm.events.tell("message", messages[comm.rank])
    entries = []
    try:
        for message in messages:
            header, theirs = wire.decode(message, out.size, tau)
            counts.add(theirs)
            entries.append(header.entries)
    except MessageError:
        counts.clear()
        raise
    counts.total(tau, out)
    return Exchanged(form, messages[comm.rank].size, tuple(entries))


def cost(lengths: Sequence[int], nodes: tuple[int, ...]) -> Cost:
    """Return the cost of an exchange of messages of these lengths, by rank, headers included.

    >>> cost([104, 24, 64], nodes=(0, 0, 0)).sent_by(2)["intra"]
    Count(messages=4, bytes=104)
    """
    each = np.full(len(lengths), LENGTH.itemsize)
    rings = [Call(sizes, nodes) for sizes in (each, np.asarray(lengths))]
    return Cost([step for call in rings for step in ring.allgather_steps(call)], nodes, itemsize=1)
