"""The ledger: what one rank has sent, counted where it is sent.

Every message of the algorithms in this package goes through a `Communicator`, and each one is
entered here: how many messages and how many bytes, by purpose and by class of link::

    purpose      what the message is for: "parameters", "gradients", "models", ...
    link         "intra" (sender and receiver on one node) or "inter" (on two nodes)

Only what is *sent* is counted, so a sum over all ranks counts every message once.  A message of
no bytes is a message.  Three kinds of traffic are not counted as messages: pickled control
traffic (agreeing on an error, gathering this ledger), what the library's own collectives send,
which nobody can see (they are entered apart, as calls), and the set-up of communicators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

LINKS = ("intra", "inter")


class Count(NamedTuple):
    """A number of messages and the bytes in them.

    >>> Count(2, 800) + Count(1, 400)
    Count(messages=3, bytes=1200)
    """

    messages: int = 0
    bytes: int = 0

    def __add__(self, other: tuple) -> Count:  # type: ignore[override]
        messages, nbytes = other
        return Count(self.messages + messages, self.bytes + nbytes)

    def __sub__(self, other: Count) -> Count:
        return Count(self.messages - other.messages, self.bytes - other.bytes)


class Ledger:
    """Counts of one rank; shared by a world's communicator and all that are split from it.

    Attributes
    ----------
    counts : dict
        (purpose, link) -> [messages, bytes] sent by this rank.
    calls : dict
        (purpose, operation) -> [calls, bytes of the vector] of the library's own collectives.
    purpose : str
        What the messages sent now are for; see `Ledger.entered_as`.

    Notes
    -----
    `sent` is called once for every message, just before it leaves, with the ranks of both ends
    in the world.  A trace of all messages is a subclass that overrides it.

    >>> ledger = Ledger()
    >>> with ledger.entered_as("gradients"):
    ...     ledger.sent(source=0, dest=1, nbytes=400, link="intra")
    >>> ledger.sent(source=0, dest=5, nbytes=8, link="inter")
    >>> ledger.total("intra"), ledger.total(purpose="gradients"), ledger.total()
    (Count(messages=1, bytes=400), Count(messages=1, bytes=400), Count(messages=2, bytes=408))
    """

    def __init__(self) -> None:
        self.purpose = "other"
        self.clear()

    def clear(self) -> None:
        """Forget everything counted so far."""
        self.counts: dict[tuple[str, str], list[int]] = {}
        self.calls: dict[tuple[str, str], list[int]] = {}

    @contextmanager
    def entered_as(self, purpose: str) -> Iterator[None]:
        """Enter what is sent inside the block under ``purpose``; the innermost block counts."""
        outer, self.purpose = self.purpose, purpose
        try:
            yield
        finally:
            self.purpose = outer

    def sent(self, source: int, dest: int, nbytes: int, link: str) -> None:
        """Enter one message; source and dest are ranks of the world."""
        _enter(self.counts, (self.purpose, link), nbytes)

    def called(self, operation: str, nbytes: int) -> None:
        """Enter one call of a collective of the library's own on a vector of nbytes."""
        _enter(self.calls, (self.purpose, operation), nbytes)

    def total(self, link: str | None = None, purpose: str | None = None) -> Count:
        """Return the messages and bytes over a link class and for a purpose (None: all)."""
        total = Count()
        for (why, where), count in self.counts.items():
            if link in (None, where) and purpose in (None, why):
                total += tuple(count)
        return total

    def totals(self) -> dict[str, Count]:
        """Return the totals per link class, ``{"intra": Count, "inter": Count}``."""
        return {link: self.total(link) for link in LINKS}

    def by_purpose(self) -> dict[str, dict[str, Count]]:
        """Return the totals per purpose and link class."""
        purposes = sorted({purpose for purpose, _ in self.counts})
        return {p: {link: self.total(link, p) for link in LINKS} for p in purposes}


def _enter(book: dict[tuple[str, str], list[int]], entry: tuple[str, str], nbytes: int) -> None:
    count = book.setdefault(entry, [0, 0])
    count[0] += 1
    count[1] += nbytes


def summed(everyones: Iterable[dict[str, Count]]) -> dict[str, Count]:
    """Add the `totals` of several ranks, link class by link class."""
    everyones = list(everyones)
    return {link: sum((totals[link] for totals in everyones), Count()) for link in LINKS}
