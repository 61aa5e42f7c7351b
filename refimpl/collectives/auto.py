"""Picks one of the explicit algorithms for each call, and says which and why.

On one node the choice is read from a measured table; across nodes the cost functions of all
algorithms that can run there are compared.  Both depend only on what every rank knows (the
operation, the length, the nodes), so all ranks choose the same, and the same in every run.
MPI's own collectives are not among the candidates: their messages could not be counted and their
order of summation is not documented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from numpy.typing import NDArray

from refimpl.collectives.cost import Cost, Link, Links
from refimpl.collectives.families import EXPLICIT, HALVING_DOUBLING, RING, TREE
from refimpl.collectives.interface import Collectives

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

# Bytes of the vector up to which halving-doubling is chosen among this many ranks of one node;
# above, the ring is.  Between two numbers of ranks the smaller one's row holds.  Two ranks send
# the same messages in both.  Four were measured on two cores, where every step costs a turn of
# the scheduler, with MPICH 5.0.2: `benchmarks/crossovers.py`, docs/collectives.md.
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


class Auto:
    """The family ``auto``: the five operations of `Collectives`, each call by the best choice.

    Parameters
    ----------
    links : Links
        The cluster's links (`refimpl.run.bench.links.measure`), equal on all ranks.
    crossover : mapping
        operation -> ranks -> bytes, the measured table for one node.

    Attributes
    ----------
    chosen : dict
        (operation, elements, itemsize, nodes) -> `Choice`, for every kind of call made so far.
    """

    name = "auto"

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
        if operation in ("broadcast", "reduce"):
            return Choice(TREE.name, "the only one inside a node")
        table = self.crossover[operation]
        measured = max((r for r in table if r <= ranks), default=None)
        if measured is None:
            return Choice(RING.name, "nothing to send")
        nbytes, most = n * itemsize, table[measured]
        family, sign = (HALVING_DOUBLING, "<=") if nbytes <= most else (RING, ">")
        return Choice(family.name, f"{nbytes} bytes {sign} {most}, measured on {measured} ranks")

    def _across_nodes(
        self, operation: str, n: int, itemsize: int, nodes: tuple[int, ...]
    ) -> Choice:
        held = [nodes.count(node) for node in set(nodes)]
        times: dict[str, float] = {}
        # The tree's all-reduce is last: it is never better than halving-doubling but for alpha.
        for family in EXPLICIT:
            if family.name == "hierarchical" and len(set(held)) > 1:
                continue
            if family.has(operation):
                times[family.name] = family.cost(operation, n, nodes, itemsize).time(self.links)
        best = min(times, key=lambda name: times[name])
        predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in times.items())
        uneven = "; nodes of unequal size exclude hierarchical" if len(set(held)) > 1 else ""
        return Choice(best, f"predicted: {predicted}{uneven}")

    def _family(self, operation: str, comm: Communicator, x: NDArray) -> Collectives:
        name = self.choose(operation, x.size, comm.nodes, x.itemsize).name
        return next(family for family in EXPLICIT if family.name == name)

    def allgather(
        self, comm: Communicator, x: NDArray, offsets: Sequence[int] | None = None
    ) -> None:
        """Fill every chunk of x with that of its owner; the choice goes by the whole length."""
        self._family("allgather", comm, x).allgather(comm, x, offsets)

    def reduce_scatter(
        self, comm: Communicator, x: NDArray, offsets: Sequence[int] | None = None
    ) -> NDArray:
        """Sum x; return the view of x that is this rank's chunk of the sum."""
        return self._family("reduce_scatter", comm, x).reduce_scatter(comm, x, offsets)

    def allreduce(self, comm: Communicator, x: NDArray) -> None:
        """Replace x by its sum over the ranks."""
        self._family("allreduce", comm, x).allreduce(comm, x)

    def broadcast(self, comm: Communicator, x: NDArray, root: int = 0) -> None:
        """Replace x by the root's."""
        self._family("broadcast", comm, x).broadcast(comm, x, root)

    def reduce(self, comm: Communicator, x: NDArray, root: int = 0) -> None:
        """Replace the root's x by the sum over the ranks; the others' is undefined."""
        self._family("reduce", comm, x).reduce(comm, x, root)

    def has(self, operation: str) -> bool:
        """Tell whether there is a choice for this operation: for all five there is."""
        return any(family.has(operation) for family in EXPLICIT)

    def cost(
        self,
        operation: str,
        n: int,
        nodes: tuple[int, ...],
        itemsize: int = 4,
        root: int = 0,
        offsets: Sequence[int] | None = None,
    ) -> Cost:
        """Return the cost of the chosen algorithm; see `Collectives.cost`."""
        name = self.choose(operation, n, nodes, itemsize).name
        family = next(family for family in EXPLICIT if family.name == name)
        return family.cost(operation, n, nodes, itemsize, root, offsets)
