"""Several mistakes at once: who mends a data directory sees more than one line at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from refimpl.support.errors import UserError
from refimpl.world.communicator import Communicator

SHOWN = 3


class Several(UserError):
    """Some mistakes in one line: the first three, and how many more there are.

    >>> print(Several(["no a", "no b", "no b", "no c", "no d"]))
    (1) no a; (2) no b; (3) no c; and 1 more
    """

    def __init__(self, messages: list[str]) -> None:
        self.messages = list(dict.fromkeys(messages))
        first, more = self.messages[:SHOWN], len(self.messages) - SHOWN
        text = "; ".join(f"({i}) {message}" for i, message in enumerate(first, 1))
        alone = len(self.messages) == 1
        super().__init__(first[0] if alone else text + (f"; and {more} more" if more > 0 else ""))


class Faults:
    """The mistakes found so far.

    >>> faults = Faults()
    >>> for name in "ab":
    ...     with faults.collected():
    ...         raise UserError(f"no {name}")
    >>> faults.messages
    ['no a', 'no b']
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Go on behind the block where it raises a `UserError`."""
        try:
            yield
        except UserError as error:
            self.messages += error.messages if isinstance(error, Several) else [str(error)]

    def refuse(self, comm: Communicator | None = None) -> None:
        """Raise what was collected, if anything; with `comm` by any rank, on all, in their order.

        Collective if there is a `comm`.
        """
        messages = self.messages
        if comm is not None:
            messages = [one for some in comm.allgather_object(messages[:]) for one in some]
        if messages:
            raise Several(messages)
