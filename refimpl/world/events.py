"""Events: what a rank does, told while it does it.

A rank's life is a stream of events, each with a begin and an end, and told where it happens, once.
Whoever wants to know listens: the `Ledger` counts; others draw, record or keep the last ones.

    kind         what happens between begin and end           value
    send         a message is sent, or starts to be           the array that leaves
    receive      a message is received, or starts to be       the array that is full at the end
                                                              (of a start: at the end of its wait)
    wait         what was started is waited for (name: its    the same
                 kind), or all ranks are (name: what for)
    library      a call of a collective of MPI's own          the vector
    collective   one that is written out here                 the vector
    compute      this rank computes
    phase        a step, a block, an evaluation, ...
    value        nothing: an array is told by its name        the array
    progress     nothing: some of what is named is done       how much of how much

Events nest.  One whose work raises an error ends all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

KINDS = (
    "send",
    "receive",
    "wait",
    "library",
    "collective",
    "compute",
    "phase",
    "value",
    "progress",
)


class Event(NamedTuple):
    """What a listener is given, the same object at the begin and at the end.

    ``purpose`` is what a message is for, ``peer`` the other end's rank in the world (-1: none),
    ``link`` the class of link to it, ``intra`` or ``inter`` node.  ``value`` is no copy.
    """

    kind: str
    name: str = ""
    purpose: str = "other"
    peer: int = -1
    nbytes: int = 0
    link: str = ""
    tag: int = 0
    value: Any = None


Fields = tuple[str, str, str, int, int, str, int, Any]
"""Those of an `Event`, in its order; an event is one, too."""


class Listener:
    """Hears the events of some kinds on one rank, in the thread of that rank.

    A method that is not overridden is not called, and costs nothing.
    """

    kinds: frozenset[str] = frozenset()

    def count(self, fields: Fields) -> None:
        """Hear that an event begins, for those that keep nothing of it: no `Event` is made."""

    def begin(self, event: Event) -> None:
        """Hear that an event begins."""

    def end(self, event: Event) -> None:
        """Hear that it is over."""


class Hearing:
    """Those who hear a kind of events."""

    __slots__ = ("_begin", "_count", "_end")

    def __init__(self, listeners: list[Listener]) -> None:
        self._count, self._begin, self._end = (
            [getattr(one, name) for one in listeners if getattr(type(one), name) is not unheard]
            for name, unheard in (
                ("count", Listener.count),
                ("begin", Listener.begin),
                ("end", Listener.end),
            )
        )

    def begin(self, *fields: Any) -> Event | None:
        """Tell them that the event of these fields begins; return it if they hear its end."""
        for count in self._count:
            count(fields)
        if not (self._begin or self._end):
            return None
        event = Event(*fields)
        for begin in self._begin:
            begin(event)
        return event

    def end(self, event: Event) -> None:
        """Tell them that it is over."""
        for end in self._end:
            end(event)


class During:
    """Tells the end of an event when the ``with`` block is left."""

    __slots__ = ("_event", "_events")

    def __init__(self, events: Events, event: Event | None) -> None:
        self._events, self._event = events, event

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.end(self._event)


class Events:
    """One rank's events: shared by a world's communicator and all that are split from it.

    Where nobody hears a kind, no event of it is made.

    Attributes
    ----------
    rank : int
        This rank's number in the world.
    purpose : str
        What the messages sent now are for.
    heard : dict
        kind -> who hears it; kinds that nobody hears are missing.

    >>> class Names(Listener):
    ...     kinds = frozenset({"phase"})
    ...     def begin(self, event): print("begin", event.name, event.purpose)
    ...     def end(self, event): print("end", event.name)
    >>> events = Events(rank=0)
    >>> with events.listen(Names()), events.purposed("models"), events.during("phase", "block"):
    ...     events.tell("norm", 1.5)
    begin block models
    end block
    >>> events.hears("phase")
    False
    """

    def __init__(self, rank: int) -> None:
        self.rank, self.purpose = rank, "other"
        self.heard: dict[str, Hearing] = {}
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Let it hear what begins from now on."""
        assert listener.kinds <= set(KINDS), f"not all are kinds of events: {listener.kinds}"
        self._listeners.append(listener)
        self._arrange()

    def remove(self, listener: Listener) -> None:
        """Let it hear no more."""
        self._listeners.remove(listener)
        self._arrange()

    def _arrange(self) -> None:
        self.heard = {}
        for kind in KINDS:
            hearing = [one for one in self._listeners if kind in one.kinds]
            if hearing:
                self.heard[kind] = Hearing(hearing)

    @contextmanager
    def listen(self, listener: Listener) -> Iterator[None]:
        """Let it hear what happens inside the ``with`` block."""
        self.add(listener)
        try:
            yield
        finally:
            self.remove(listener)

    def hears(self, kind: str) -> bool:
        """Tell whether anybody hears events of this kind."""
        return kind in self.heard

    def begin(
        self,
        kind: str,
        name: str = "",
        peer: int = -1,
        nbytes: int = 0,
        link: str = "",
        tag: int = 0,
        value: Any = None,
        purpose: str | None = None,
    ) -> Event | None:
        """Tell that an event begins; return it for `end`, or None if that is not needed."""
        hearing = self.heard.get(kind)
        if hearing is None:
            return None
        why = self.purpose if purpose is None else purpose
        return hearing.begin(kind, name, why, peer, nbytes, link, tag, value)

    def end(self, event: Event | None) -> None:
        """Tell that what `begin` returned is over."""
        if event is not None and event.kind in self.heard:
            self.heard[event.kind].end(event)

    def during(
        self, kind: str, name: str, value: Any = None, nbytes: int = 0
    ) -> AbstractContextManager[None]:
        """Tell an event that lasts as long as the ``with`` block, and begins now."""
        if kind not in self.heard:
            return _UNHEARD
        return During(self, self.begin(kind, name, nbytes=nbytes, value=value))

    def tell(self, name: str, value: Any) -> None:
        """Tell a value by its name, as an event that begins and ends at once."""
        self.end(self.begin("value", name, value=value))

    def progress(self, name: str, done: int, total: int) -> None:
        """Tell that so many parts of something that may take long are done on this rank."""
        if "progress" in self.heard:
            self.end(self.begin("progress", name, value=(done, total)))

    @contextmanager
    def purposed(self, purpose: str) -> Iterator[None]:
        """Say what messages sent inside the ``with`` block are for; the innermost block counts."""
        outer, self.purpose = self.purpose, purpose
        try:
            yield
        finally:
            self.purpose = outer


_UNHEARD = nullcontext()
