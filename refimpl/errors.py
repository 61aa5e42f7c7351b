"""Two kinds of errors: what a caller can get wrong, and what cannot happen.

A caller's mistake is a `UserError`: one line that says what was given, what is needed and
what would work.  It is shown without a traceback, and it must be raised on every rank, so
that no rank is left waiting for one that has gone.  `together` sees to that where only one
rank can know (a file that is missing on one node).  What cannot happen is an ``assert``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refimpl.communicator import Communicator


class UserError(Exception):
    """A mistake of the caller's; its text is the one line that the caller sees."""


class Diverged(UserError):
    """A run whose loss is not finite any more; raised on all ranks."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError` with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


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
