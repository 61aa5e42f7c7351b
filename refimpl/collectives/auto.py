"""Picks one of the explicit algorithms for each call, and says which and why.

On one node the choice is read from a measured table; across nodes the cost functions of all
algorithms that can run there are compared.  Both depend only on what every rank knows (the
operation, the length, the nodes), so all ranks choose the same, and the same in every run.
MPI's own collectives are not among the candidates: their messages could not be counted and their
order of summation is not documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from refimpl.collectives.cost import Link, Links
from refimpl.collectives.families import EXPLICIT, HALVING_DOUBLING, RING, TREE
from refimpl.collectives.interface import ROOTED, Collectives, Family

SHORT, LONG = HALVING_DOUBLING, RING  # whom short and long vectors are given to inside a node

# Bytes of the vector up to which it is short, among this many ranks of one node.  Between two
# numbers of ranks the smaller one's row holds.  Two ranks send the same messages in both.  Four
# were measured on two cores, where every step costs a turn of the scheduler, with MPICH 5.0.2:
# `benchmarks/crossovers.py`, docs/collectives.md.
CROSSOVER: Mapping[str, Mapping[int, int]] = {
    "allgather": {2: 0, 4: 1 << 26},
    "reduce_scatter": {2: 0, 4: 1 << 22},
    "allreduce": {2: 0, 4: 1 << 22},
}

# Assumed where nothing was measured: shared memory, and Ethernet of 10 Gbit/s.
ASSUMED = Links(intra=Link(2e-6, 2e-10), inter=Link(3e-5, 8e-10), gamma=1e-10)


class Choice(NamedTuple):
    """Which family a call uses, and the reason in words."""

    name: str
    why: str


class Auto(Collectives):
    """The family ``auto``: every call by the best choice, which goes by the whole length.

    ``links``: the cluster's links (`refimpl.run.bench.links.measure`), equal on all ranks.
    ``crossover``: operation -> ranks -> bytes, the measured table for one node.

    Attributes
    ----------
    chosen : dict
        (operation, elements, itemsize, nodes) -> `Choice`, for every kind of call made so far.
    """

    name = "auto"
    ahead = None

    def __init__(
        self, links: Links = ASSUMED, crossover: Mapping[str, Mapping[int, int]] = CROSSOVER
    ) -> None:
        self.links, self.crossover = links, crossover
        self.chosen: dict[tuple[str, int, int, tuple[int, ...]], Choice] = {}

    def choose(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Choice:
        """Return the choice for a call with n elements on ranks that lie on these nodes.

        >>> Auto().choose("allreduce", 10**7, nodes=(0, 0, 0, 0)).name
        'ring'
        >>> Auto().choose("allgather", 10**7, nodes=(0, 0, 1, 1)).name
        'hierarchical'
        """
        key = operation, n, itemsize, nodes
        if key not in self.chosen:
            decide = self._on_one_node if len(set(nodes)) == 1 else self._across_nodes
            self.chosen[key] = decide(*key)
        return self.chosen[key]

    def _on_one_node(
        self, operation: str, n: int, itemsize: int, nodes: tuple[int, ...]
    ) -> Choice:
        ranks = len(nodes)
        if operation in ROOTED:
            return Choice(TREE.name, "the only one inside a node")
        table = self.crossover[operation]
        measured = max((r for r in table if r <= ranks), default=None)
        if measured is None:
            return Choice(LONG.name, "nothing to send")
        nbytes, most = n * itemsize, table[measured]
        family, sign = (SHORT, "<=") if nbytes <= most else (LONG, ">")
        return Choice(family.name, f"{nbytes} bytes {sign} {most}, measured on {measured} ranks")

    def _across_nodes(
        self, operation: str, n: int, itemsize: int, nodes: tuple[int, ...]
    ) -> Choice:
        # The tree's all-reduce is last: it is never better than halving-doubling but for alpha.
        having = [family for family in EXPLICIT if family.has(operation)]
        times = {
            family.name: family.cost(operation, n, nodes, itemsize).time(self.links)
            for family in having
            if family.refuses(operation, nodes) is None
        }
        best = min(times, key=lambda name: times[name])
        predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in times.items())
        unfit = [family.name for family in having if family.name not in times]
        unequal = f"; nodes of unequal size exclude {', '.join(unfit)}" if unfit else ""
        return Choice(best, f"predicted: {predicted}{unequal}")

    def family(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Family:
        """Return the family that is chosen."""
        name = self.choose(operation, n, nodes, itemsize).name
        return next(family for family in EXPLICIT if family.name == name)

    def has(self, operation: str) -> bool:
        """Tell whether there is a choice for this operation: for all five there is."""
        return any(family.has(operation) for family in EXPLICIT)

    def refuses(self, operation: str, nodes: tuple[int, ...]) -> str | None:
        """Return None: there is a choice on all nodes."""
        return None
