"""What a collective costs: messages and bytes exactly, time in the alpha-beta model.

Every algorithm states its schedule as a list of steps, made by the same index functions as its
loop.  From the schedule follow, without running anything,

- the messages and bytes that each rank sends over each class of link, which equal the ledger of
  a real run exactly (tests compare them), and
- a prediction of the time, from four numbers per cluster, two per class of link:

      message of m bytes:    alpha + m beta         (alpha: seconds, beta: seconds per byte)

The model is that of Hockney, in the form of Thakur, Rabenseifner and Gropp (2005).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refimpl.world.ledger import Count


class Step(NamedTuple):
    """The messages that may be under way at the same time: equally long arrays, one entry each.

    ``adds`` says that the receivers add what arrives to what they have.
    """

    source: NDArray[np.int64]
    dest: NDArray[np.int64]
    elements: NDArray[np.int64]
    adds: bool = False

    @classmethod
    def of(
        cls, source: ArrayLike, dest: ArrayLike, elements: ArrayLike, adds: bool = False
    ) -> Step:
        """Make a step of arrays (or numbers) of one shape."""
        source, dest, elements = np.broadcast_arrays(source, dest, elements)
        return cls(source.ravel(), dest.ravel(), elements.ravel(), adds)


class Link(NamedTuple):
    """One class of link: seconds per message, seconds per byte."""

    alpha: float
    beta: float


class Links(NamedTuple):
    """The links of a cluster.

    ``intra`` is what one rank has to another rank of its node; ``inter`` is what one *node* has
    to another: the ranks of a node share it.  ``gamma`` is seconds per byte added.
    """

    intra: Link
    inter: Link
    gamma: float = 0.0


@dataclass(frozen=True)
class Cost:
    """The cost of one collective call on ranks that lie on these nodes.

    >>> step = Step.of(source=[0, 1, 2, 3], dest=[1, 2, 3, 0], elements=100)
    >>> cost = Cost([step], nodes=(0, 0, 1, 1), itemsize=4)
    >>> cost.sent_by(0), cost.sent_by(1)["inter"]
    ({'intra': Count(messages=1, bytes=400), 'inter': Count(messages=0, bytes=0)}, \
Count(messages=1, bytes=400))
    >>> cost.total()["intra"], cost.entering(node=1)
    (Count(messages=2, bytes=800), Count(messages=1, bytes=400))
    >>> round(cost.time(Links(intra=Link(1e-6, 1e-9), inter=Link(1e-4, 1e-8))), 9)
    0.000104
    """

    steps: Sequence[Step]
    nodes: tuple[int, ...]
    itemsize: int

    def _count(self, chosen: Callable[[Step], NDArray[np.bool_]]) -> Count:
        total = Count()
        for step in self.steps:
            which = chosen(step)
            total += (int(which.sum()), int(step.elements[which].sum()) * self.itemsize)
        return total

    def _crosses(self, step: Step) -> NDArray[np.bool_]:
        node = np.asarray(self.nodes)
        return node[step.source] != node[step.dest]

    def sent_by(self, rank: int) -> dict[str, Count]:
        """Return what one rank sends, per class of link."""
        return {
            "intra": self._count(lambda s: (s.source == rank) & ~self._crosses(s)),
            "inter": self._count(lambda s: (s.source == rank) & self._crosses(s)),
        }

    def total(self) -> dict[str, Count]:
        """Return what all ranks send together, per class of link."""
        return {
            "intra": self._count(lambda s: ~self._crosses(s)),
            "inter": self._count(self._crosses),
        }

    def entering(self, node: int) -> Count:
        """Return what enters a node from the others."""
        nodes = np.asarray(self.nodes)
        return self._count(lambda s: self._crosses(s) & (nodes[s.dest] == node))

    def time(self, links: Links) -> float:
        """Predict the seconds that the call takes.

        Steps follow one another; a step is over when the slowest rank and the slowest node are
        done.  A rank sends its messages inside the node one after the other, and receives at
        the same time; a node's link carries the bytes of all its ranks, in both directions at
        once, after one latency.  Additions come after the message that they wait for.
        """
        return sum(self._step_time(step, links) for step in self.steps)

    def _step_time(self, step: Step, links: Links) -> float:
        node = np.asarray(self.nodes)
        nbytes, crosses = step.elements * self.itemsize, self._crosses(step)
        inside = np.where(crosses, 0.0, links.intra.alpha + nbytes * links.intra.beta)
        across = np.where(crosses, nbytes * links.inter.beta, 0.0)
        busy = [
            np.bincount(step.source, inside).max(initial=0.0),
            np.bincount(step.dest, inside).max(initial=0.0),
        ]
        if crosses.any():
            leaves = np.bincount(node[step.source], across).max()
            enters = np.bincount(node[step.dest], across).max()
            busy.append(links.inter.alpha + max(leaves, enters))
        adding = (
            np.bincount(step.dest, nbytes * links.gamma).max(initial=0.0) if step.adds else 0.0
        )
        return float(max(busy) + adding)
