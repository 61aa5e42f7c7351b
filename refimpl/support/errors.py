"""Two kinds of errors: what a caller can get wrong, and what cannot happen.

A caller's mistake is a `UserError`: one line that says what was given, what is needed and
what would work.  It is shown without a traceback, and it must be raised on every rank, so
that no rank is left waiting for one that has gone.  `together` sees to that where only one
rank can know (a file that is missing on one node), `on_first_rank` where only one has work.
What cannot happen is an ``assert``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from mpi4py import MPI

    from refimpl.world.communicator import Communicator

T = TypeVar("T")


class UserError(Exception):
    """A mistake of the caller's; its text is the one line that the caller sees."""


class Diverged(UserError):
    """A run whose loss is not finite any more; raised on all ranks."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError` with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_types(values: Any, what: str) -> None:
    """Raise `UserError` unless every field of a dataclass holds what its annotation says.

    An int counts as a float, a list as a tuple, and a bool as nothing but a bool.
    """
    hints = get_type_hints(type(values))
    for field in fields(values):
        value = getattr(values, field.name)
        require(
            _fits(value, hints[field.name]),
            f"{what} {field.name} is {value!r}: its type must be {field.type}",
        )


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of an annotated type."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, (tuple, list)) and all(_fits(one, each) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


def listed(names) -> str:
    """Return names as they stand in an error message: ``a, b, c``, sorted."""
    return ", ".join(sorted(str(name) for name in names))


@contextmanager
def together(comm: Communicator) -> Iterator[None]:
    """Raise a `UserError` of any rank on all of them.

    Every rank of ``comm`` enters and leaves the block; inside it no rank may wait for
    another.  If ranks disagree, the lowest rank's message is the one that all raise.
    Costs one small control message per rank, which the ledger does not count.
    """
    mine: str | None = None
    try:
        yield
    except UserError as error:
        mine = str(error)
    messages = comm.allgather_object(mine)
    for message in messages:
        if message is not None:
            raise UserError(message)


def on_first_rank(comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Have rank 0 of an MPI communicator do it; return what comes of it on all ranks.

    A `UserError` of it (or the end of who reads our output) is raised on all, too.  The others
    wait asleep, so that they take no time from it.  Collective.
    """
    outcome: Any = None
    if comm.rank == 0:
        try:
            outcome = work()
        except (UserError, BrokenPipeError) as error:
            outcome = error
    meet(comm)
    outcome = comm.bcast(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def meet(comm: MPI.Comm, limit: float = math.inf) -> bool:
    """Wait for all ranks, mostly asleep; return whether they came within so many seconds."""
    barrier, since = comm.Ibarrier(), time.monotonic()
    while not barrier.Test():
        if time.monotonic() - since > limit:
            return False
        time.sleep(0.01)
    return True
