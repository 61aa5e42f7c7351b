"""Picks one of the explicit algorithms for each call, and says which and why.

The cost functions of all that can run are filled in with the links, and the least time wins.  Of
those that are close, a short vector takes the fewest steps, since every step may be delayed, and a
long one sends the fewest bytes: in the shortest messages where they are added, since those stay in
the cache until then, else in the fewest steps.

That depends only on what every rank knows (operation, length, nodes, links), so all
ranks choose the same.  Links that are assumed make it the same in every run, too; those that were
measured are part of a run (`--links`), which another measurement must not change: another choice
adds in another order.

MPI's own collectives are not among the candidates: their messages could not be counted and their
order of summation is not documented.
"""

from __future__ import annotations

from typing import NamedTuple

from refimpl.collectives.cost import Cost, Link, Links
from refimpl.collectives.families import EXPLICIT, able
from refimpl.collectives.interface import Collectives, Family

# Assumed where nothing was measured: shared memory, with what Python needs for a message, and
# Ethernet of 10 Gbit/s.
ASSUMED = Links(intra=Link(8e-6, 2e-10), inter=Link(3e-5, 8e-10), gamma=1e-10)

CLOSE = 1.05  # times so near each other are equal, as predictions go
LONG = 0.9  # the share of the time that bytes take, of a vector whose steps no longer count


class Choice(NamedTuple):
    """Which family a call uses, and the reason in words."""

    name: str
    why: str


class Auto(Collectives):
    """The family ``auto``: every call by the best choice, which goes by the whole length.

    ``links``: the cluster's links (`refimpl.run.bench.links.measure`), equal on all ranks.

    Attributes
    ----------
    chosen : dict
        (operation, elements, itemsize, nodes) -> `Choice`, for every kind of call made so far.
    """

    name = "auto"
    ahead = None

    def __init__(self, links: Links = ASSUMED) -> None:
        self.links = links
        self.chosen: dict[tuple[str, int, int, tuple[int, ...]], Choice] = {}
        self._families: dict[tuple[str, int, int, tuple[int, ...]], Family] = {}

    def choose(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Choice:
        """Return the choice for a call with n elements on ranks that lie on these nodes.

        >>> Auto().choose("allreduce", 100, nodes=(0, 0, 0, 0)).name
        'recursive-doubling'
        >>> Auto().choose("allgather", 10**7, nodes=(0, 0, 1, 1)).name
        'hierarchical'
        """
        key = operation, n, itemsize, nodes
        if key not in self.chosen:
            self.chosen[key] = self._choice(*key)
        return self.chosen[key]

    def _choice(self, operation: str, n: int, itemsize: int, nodes: tuple[int, ...]) -> Choice:
        can = able(operation, nodes)
        if len(nodes) == 1:
            return Choice(can[0].name, "nothing to send")
        costs = {family.name: family.cost(operation, n, nodes, itemsize) for family in can}
        times = {name: cost.time(self.links) for name, cost in costs.items()}
        first = min(times, key=lambda name: times[name])
        close = [name for name in times if times[name] <= CLOSE * times[first]]
        moving = costs[first].time(self.links.without_alpha())
        short = moving < LONG * times[first]
        measure = _steps if short else _bytes
        best = min(close, key=lambda name: measure(costs[name]))
        predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in times.items())
        if best != first:
            long = "the fewest bytes, then the shortest additions, then the fewest steps"
            what = "the fewest steps" if short else long
            predicted += f"; of those within {CLOSE - 1:.0%} of the least, {best} has {what}"
        unfit = [f.name for f in EXPLICIT if f.has(operation) and f.refuses(operation, nodes)]
        unequal = f"; nodes of unequal size exclude {', '.join(unfit)}" if unfit else ""
        return Choice(best, f"predicted: {predicted}{unequal}")

    def family(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Family:
        """Return the family that is chosen."""
        key = operation, n, itemsize, nodes
        if key not in self._families:
            name = self.choose(operation, n, nodes, itemsize).name
            self._families[key] = next(family for family in EXPLICIT if family.name == name)
        return self._families[key]

    def has(self, operation: str) -> bool:
        """Tell whether there is a choice for this operation: for all there is."""
        return any(family.has(operation) for family in EXPLICIT)

    def refuses(self, operation: str, nodes: tuple[int, ...]) -> str | None:
        """Return None: there is a choice on all nodes."""
        return None


def _steps(cost: Cost) -> int:
    return sum(step.times for step in cost.steps)


def _bytes(cost: Cost) -> tuple[int, int, int]:
    """Return the elements that all ranks send, those of the longest added message, the steps."""
    total = sum(step.times * int(step.elements.sum()) for step in cost.steps)
    added = max(int(step.elements.max(initial=0, where=step.adds)) for step in cost.steps)
    return total, added, _steps(cost)
