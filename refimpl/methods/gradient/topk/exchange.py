"""The exchange of top-k's messages: every rank gets every rank's, and adds them up in rank order.

All messages of a group are equally long, so they go round a ring as they are; all ranks decode the
same bytes, their own included, and end with the same sum to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import ring
from refimpl.collectives.chunks import Call
from refimpl.collectives.cost import Cost
from refimpl.methods.gradient.topk.message import Chunks

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


def exchange(
    comm: Communicator,
    chunks: Chunks,
    residual: np.ndarray,
    out: np.ndarray,
    senders: NDArray[np.uint16] | None = None,
) -> None:
    """Set ``out`` (shard,) to the sum of what all ranks send of their residuals (shard,).

    Parameters
    ----------
    comm : Communicator
        g ranks.  All of them call, with the same chunks.
    chunks : Chunks
        Those of this shard.
    residual, out : (shard,) arrays
        What is sent is taken out of the residual; the sum is the same bits on all ranks.
    senders : (shard,) uint16, optional
        Work space.  If given, the sum is the g-fold mean over those that sent a value: it is
        multiplied by g and divided by how many these are.

    Notes
    -----
    A ring all-gather of the messages, which are equally long.  Order of summation: 0, rank 0,
    rank 1, ...  Cost per rank: g - 1 messages of `Chunks.message_bytes`; `cost` gives it exactly.
    """
    p, r = comm.size, comm.rank
    length = chunks.message_bytes
    everyones = comm.scratch(p * length, np.uint8)
    chunks.encode(residual, everyones[r * length : (r + 1) * length])
    ring.allgather(comm, everyones, offsets=np.arange(p + 1) * length)
    out.fill(0)
    if senders is not None:
        senders.fill(0)
    for rank in range(p):
        index, values = chunks.decode(everyones[rank * length : (rank + 1) * length])
        out[index] += values
        if senders is not None:
            senders[index] += 1
    if senders is not None:
        out *= p
        np.divide(out, senders, out=out, where=senders > 0, casting="same_kind")


def cost(nbytes: int, nodes: tuple[int, ...]) -> Cost:
    """Return the cost of `exchange` of messages of so many bytes on ranks on these nodes.

    >>> cost(600, nodes=(0, 0, 0)).sent_by(2)["intra"]
    Count(messages=2, bytes=1200)
    """
    call = Call(np.full(len(nodes), nbytes), nodes)
    return Cost(list(ring.allgather_steps(call)), nodes, itemsize=1)
