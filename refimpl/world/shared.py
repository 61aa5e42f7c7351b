"""Messages and the links that they share, in virtual time: how long each takes while others do.

A node has one link out and one in.  Of x messages on a link each gets an x-th part: a byte takes
x beta, with the larger x of the two links that a message is on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

Then = Callable[[float], None]
"""What is done at a time, which it is told."""


class Message:
    """What is sent, from when one of its two ends has started.

    ``begun``: when both have.  ``done``: when it is there, as soon as that is known.
    """

    __slots__ = ("begun", "content", "done", "waiting")

    def __init__(self, content: bytes | None) -> None:
        self.content, self.begun = content, 0.0
        self.done: float | None = None
        self.waiting: list[int] = []  # ranks


class Flow:
    """A message from a node to another: ``left`` bytes as of ``since``, each takes ``pace``."""

    __slots__ = ("done", "ends", "left", "pace", "plans", "since")

    def __init__(self, nbytes: float, nodes: tuple[int, int], done: Then) -> None:
        self.left, self.done, self.ends = nbytes, done, (("out", nodes[0]), ("in", nodes[1]))
        self.pace, self.since = -1.0, 0.0
        self.plans = 0  # how often its end was worked out: all but the last are void


class Shared:
    """All links; ``at(time, what)`` sees to it that something is done then."""

    def __init__(self, beta: float, at: Callable[[float, Then], None]) -> None:
        self.beta, self.at = beta, at
        self._flows: defaultdict[tuple[str, int], dict[Flow, None]] = defaultdict(dict)

    def join(self, flow: Flow, now: float) -> None:
        """Let a message begin; ``flow.done`` is called when it is over."""
        for end in flow.ends:
            self._flows[end][flow] = None
        self._share(flow, now)

    def _leave(self, flow: Flow, plan: int, now: float) -> None:
        if plan != flow.plans:
            return
        for end in flow.ends:
            del self._flows[end][flow]
        flow.done(now)
        self._share(flow, now)

    def _share(self, changed: Flow, now: float) -> None:
        """Work out anew when those end that are on a link with one that has come or gone."""
        out, into = (self._flows[end] for end in changed.ends)
        for flow in {**out, **into}:
            pace = self.beta * max(len(self._flows[end]) for end in flow.ends)
            if pace == flow.pace:
                continue
            if flow.pace > 0:
                flow.left = max(0.0, flow.left - (now - flow.since) / flow.pace)
            flow.pace, flow.since, flow.plans = pace, now, flow.plans + 1
            self.at(now + flow.left * pace, partial(self._leave, flow, flow.plans))
