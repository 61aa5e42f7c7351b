"""The ledger: what one rank has sent, counted where it is sent.

Every message of the algorithms in this package goes through a `Communicator`, which tells an event
of it; the ledger listens and enters how many messages and how many bytes, by purpose and by class
of link::

    purpose      what the message is for: "parameters", "gradients", "models", ...
    link         "intra" (sender and receiver on one node) or "inter" (on two nodes)

Only what is *sent* is counted, so a sum over all ranks counts every message once.  A message of
no bytes is a message.  What training computes with is counted, the few numbers of a norm, a
density or a sum of losses too (`refimpl.collectives.small`).  Three kinds of traffic are not:

- pickled objects: agreeing on an error, gathering this ledger, times and memory, set-up of the
  data, and what each rank made of its utterances (alignments, words);
- what the library's own collectives send, which nobody can see: they are entered apart, as calls;
- the set-up of communicators, and barriers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from refimpl.world.events import Fields, Listener

LINKS = ("intra", "inter")


class Count(NamedTuple):
    """A number of messages and the bytes in them.

    >>> Count(2, 800) + Count(1, 400)
    Count(messages=3, bytes=1200)
    """

    messages: int = 0
    bytes: int = 0

    def __add__(self, other: tuple[Any, ...]) -> Count:
        messages, nbytes = other
        return Count(self.messages + messages, self.bytes + nbytes)

    def __sub__(self, other: Count) -> Count:
        return Count(self.messages - other.messages, self.bytes - other.bytes)


class Ledger(Listener):
    """Counts of one rank: a listener to its sends and to its calls of MPI's own collectives.

    Attributes
    ----------
    counts : dict
        (purpose, link) -> [messages, bytes] sent by this rank.
    calls : dict
        (purpose, operation) -> [calls, bytes of the vector] of the library's own collectives.

    >>> from refimpl.world.events import Event
    >>> ledger = Ledger()
    >>> ledger.count(Event("send", purpose="gradients", peer=1, nbytes=400, link="intra"))
    >>> ledger.count(Event("send", peer=5, nbytes=8, link="inter"))
    >>> ledger.total("intra"), ledger.total(purpose="gradients"), ledger.total()
    (Count(messages=1, bytes=400), Count(messages=1, bytes=400), Count(messages=2, bytes=408))
    """

    kinds = frozenset({"send", "library"})

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything counted so far."""
        self.counts: dict[tuple[str, str], list[int]] = {}
        self.calls: dict[tuple[str, str], list[int]] = {}

    def count(self, fields: Fields) -> None:
        """Enter a message just before it leaves, or a call of the library."""
        kind, name, purpose, _, nbytes, link, _, _ = fields
        if kind == "send":
            book, entry = self.counts, (purpose, link)
        else:
            book, entry = self.calls, (purpose, name)
        try:
            count = book[entry]
        except KeyError:
            count = book[entry] = [0, 0]
        count[0] += 1
        count[1] += nbytes

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


def summed(everyones: Iterable[dict[str, Count]]) -> dict[str, Count]:
    """Add the `totals` of several ranks, link class by link class."""
    everyones = list(everyones)
    return {link: sum((totals[link] for totals in everyones), Count()) for link in LINKS}
