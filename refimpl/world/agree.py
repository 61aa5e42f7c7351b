"""Ranks that agree: one error on all of them, equal values, work that one does for all, a meeting.

A `UserError` must be raised on every rank, so that none is left waiting for one that has gone.
`together` sees to that where only one rank can know (a file that is missing on one node), `same`
where each was told for itself, `on_first_rank` where only one has work.  What is said here is
control traffic, which the ledger does not count.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from refimpl.support.errors import UserError, failure
from refimpl.world.transport import asleep

if TYPE_CHECKING:
    from mpi4py import MPI

    from refimpl.world.communicator import Communicator

T = TypeVar("T")


@contextmanager
def together(comm: Communicator) -> Iterator[None]:
    """Raise a `UserError`, or what the system refuses, of any rank on all of them.

    Every rank of ``comm`` enters and leaves the block; inside it no rank may wait for
    another.  If ranks disagree, the lowest rank's message is the one that all raise.
    Costs one small control message per rank, which the ledger does not count.
    """
    mine: str | None = None
    try:
        yield
    except (UserError, OSError, MemoryError) as error:
        mine = failure(error)
    messages = comm.allgather_object(mine)
    for message in messages:
        if message is not None:
            raise UserError(message)


def same(comm: Communicator, values: Mapping[str, Any]) -> None:
    """Raise a `UserError` on all ranks unless each of these values is the same on all of them.

    It names what differs, both values and the ranks.  Values are plain data, and equal if they
    are written alike.  Costs two small control messages per rank at most, as a rule one.
    """
    mine = {name: "not given" if value is None else repr(value) for name, value in values.items()}
    digest = hashlib.sha256(repr(sorted(mine.items())).encode()).digest()
    if len(set(comm.allgather_object(digest))) == 1:
        return
    everyones = comm.allgather_object(mine)
    odd = []
    for name in dict.fromkeys(name for one in everyones for name in one):
        texts = [one.get(name, "not there") for one in everyones]
        other = next((text for text in texts if text != texts[0]), None)
        if other is not None:
            (ours, theirs) = (
                f"{text[:60]} on {named([r for r, one in enumerate(texts) if one == text])}"
                for text in (texts[0], other)
            )
            odd.append(f"{name} is {ours} but {theirs}")
    more = f"; and {len(odd) - 3} more" if len(odd) > 3 else ""
    raise UserError(f"ranks differ: {'; '.join(odd[:3])}{more}: give the same to all ranks")


def named(ranks: list[int], nodes: tuple[int, ...] = ()) -> str:
    """Return ranks in words; with their nodes, if the nodes of all are given.

    >>> named([1]), named([1, 2]), named(list(range(1, 9)))
    ('rank 1', 'ranks 1, 2', 'ranks 1, 2, 3, 4 and 4 more')
    >>> named([3], nodes=(0, 0, 1, 1))
    'rank 3 (node 1)'
    """
    shown = [f"{rank} (node {nodes[rank]})" if nodes else str(rank) for rank in ranks[:4]]
    more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(shown)}{more}"


def on_first_rank(comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Have rank 0 of an MPI communicator do it; return what comes of it on all ranks.

    A `UserError` of it, what the system refuses it, or the end of who reads our output is raised
    on all, too.  The others wait asleep, so that they take no time from it.  Collective.
    """
    outcome: Any = None
    if comm.rank == 0:
        try:
            outcome = work()
        except (UserError, BrokenPipeError) as error:
            outcome = error
        except (OSError, MemoryError) as error:
            outcome = UserError(failure(error))
    meet(comm)
    common: T = comm.bcast(outcome)
    if isinstance(common, Exception):
        raise common
    return common


def meet(comm: MPI.Comm, limit: float = math.inf) -> bool:
    """Wait for all ranks, mostly asleep; return whether they came within so many seconds."""
    return asleep(comm.Ibarrier(), limit)
