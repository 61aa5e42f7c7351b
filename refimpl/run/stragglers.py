"""Stragglers: ranks that need much longer than the others for the same work.

All wait for the slowest, so the time of a step does not tell who that is; the time that each rank
computes does.  It is taken from the events that the rank tells anyway, waiting left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from refimpl.support.text import duration
from refimpl.world.events import Event, Listener

FACTOR = 2.0  # times what half of the ranks need
SHARE, LEAST = 0.1, 1.0  # of an epoch's time, and seconds: less does not matter, or is chance


class Clock(Listener):
    """Adds up the seconds in which one rank computes; they do not nest."""

    kinds = frozenset({"compute"})

    def __init__(self) -> None:
        self.seconds = self._since = 0.0

    def begin(self, event: Event) -> None:
        """Start."""
        self._since = time.perf_counter()

    def end(self, event: Event) -> None:
        """Stop."""
        self.seconds += time.perf_counter() - self._since

    def told(self) -> float:
        """Return the seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def stragglers(
    computed: Sequence[float], seconds: float, nodes: Sequence[int]
) -> list[dict[str, Any]]:
    """Return who computed for much longer than the median rank in an epoch of so many seconds.

    >>> stragglers([1.0, 1.25, 9.5, 1.0], seconds=10, nodes=(0, 0, 1, 1))
    [{'rank': 2, 'node': 1, 'seconds': 9.5, 'median': 1.0}]
    >>> stragglers([1.0, 1.25, 1.5, 1.0], 10, (0,) * 4), stragglers([0.1, 0.9], 1, (0, 0))
    ([], [])
    """
    median = sorted(computed)[(len(computed) - 1) // 2]
    return [
        {"rank": rank, "node": node, "seconds": mine, "median": median}
        for rank, (mine, node) in enumerate(zip(computed, nodes, strict=True))
        if mine > FACTOR * median and mine - median > max(SHARE * seconds, LEAST)
    ]


def told(found: Sequence[dict[str, Any]]) -> str:
    """Return them for the line of an epoch; "" if there are none.

    >>> told([{"rank": 2, "node": 1, "seconds": 9.5, "median": 1.0}])
    '; rank 2 (node 1) computed for 9.5 s, the median 1.0 s'
    """
    shown = [
        f"; rank {one['rank']} (node {one['node']}) computed for {duration(one['seconds'])}, "
        f"the median {duration(one['median'])}"
        for one in found[:3]
    ]
    more = len(found) - len(shown)
    return "".join(shown) + (f"; and {more} more" if more else "")
