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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refimpl.collectives.chunks import Ints
from refimpl.support.errors import UserError, brief
from refimpl.world.ledger import Count


class Step(NamedTuple):
    """The messages that may be under way at the same time: equally long arrays, one entry each.

    ``adds`` says whether the receiver adds what arrives to what it has, ``times`` how many such
    steps follow one another: where all chunks are alike, so are the steps of a ring, and one
    stands for them all.  ``copies``: what arrives is put in its place by a copy afterwards, which
    takes as long as an addition.
    """

    source: Ints
    dest: Ints
    elements: Ints
    adds: NDArray[np.bool_]
    times: int = 1
    copies: bool = False

    @classmethod
    def of(
        cls,
        source: ArrayLike,
        dest: ArrayLike,
        elements: ArrayLike,
        adds: ArrayLike = False,
        times: int = 1,
        copies: bool = False,
    ) -> Step:
        """Make a step of arrays (or numbers) that broadcast to one shape."""
        numbers = (np.asarray(each, np.int64) for each in (source, dest, elements))
        arrays = np.broadcast_arrays(*numbers, adds)
        source, dest, elements, adds = (array.ravel() for array in arrays)
        return cls(source, dest, elements, adds, times, copies)

    def among(self, ranks: ArrayLike) -> Step:
        """Return the step as these ranks take it: (p,), or (G, p) for G groups at once.

        >>> Step.of(source=[0, 1], dest=[1, 0], elements=5).among([[6, 7], [8, 9]]).dest.tolist()
        [7, 6, 9, 8]
        """
        ranks = np.asarray(ranks)
        source, dest = ranks[..., self.source], ranks[..., self.dest]
        return self.of(source, dest, self.elements, self.adds, self.times, self.copies)

    def backwards(self, adds: bool = False) -> Step:
        """Return the step with every message turned round."""
        return self.of(self.dest, self.source, self.elements, adds, self.times)


def side_by_side(schedules: Sequence[Sequence[Step]]) -> list[Step]:
    """Return the steps of schedules that begin together: step s of all of them is one step.

    >>> there, back = Step.of(0, 1, 5, times=2), Step.of(1, 0, 5)
    >>> [step.source.tolist() for step in side_by_side([[there], [back]])]
    [[0, 1], [0]]
    """
    if len({tuple(step.times for step in steps) for steps in schedules}) > 1:
        schedules = [
            [step._replace(times=1) for step in steps for _ in range(step.times)]
            for steps in schedules
        ]
    joined = []
    for together in zip_longest(*schedules):
        steps = [step for step in together if step is not None]
        source, dest, elements, adds = (
            np.concatenate([step[column] for step in steps]) for column in range(4)
        )
        copies = any(step.copies for step in steps)
        joined.append(Step(source, dest, elements, adds, steps[0].times, copies))
    return joined


class Link(NamedTuple):
    """One class of link: seconds per message, seconds per byte."""

    alpha: float
    beta: float


NUMBERS = ("intra_alpha", "intra_beta", "inter_alpha", "inter_beta", "gamma", "cores")


class Links(NamedTuple):
    """The links of a cluster.

    ``intra`` is what one rank has to another rank of its node; ``inter`` is what one *node* has
    to another: the ranks of a node share it.  ``gamma`` is seconds per byte added.  ``cores`` is
    how many cores a node has for each of its ranks, at most 1: fewer, and ranks take turns.
    """

    intra: Link
    inter: Link
    gamma: float = 0.0
    cores: float = 1.0

    def without_alpha(self) -> Links:
        """Return links on which only bytes take time."""
        intra, inter = self.intra._replace(alpha=0.0), self.inter._replace(alpha=0.0)
        return self._replace(intra=intra, inter=inter)

    def plain(self) -> dict[str, float]:
        """Return the numbers by name, as files have them.

        >>> Links(Link(1e-6, 1e-9), Link(1e-4, 1e-8)).plain()["inter_alpha"]
        0.0001
        """
        return dict(zip(NUMBERS, (*self.intra, *self.inter, self.gamma, self.cores), strict=True))

    @classmethod
    def of(cls, plain: Mapping[str, Any], what: str) -> Links:
        """Return what `plain` gave; raise `UserError` if this is something else.

        >>> links = Links(Link(1e-6, 1e-9), Link(1e-4, 1e-8), cores=0.5)
        >>> Links.of(links.plain(), "links") == links
        True
        """
        for name in NUMBERS:
            number: Any = plain.get(name)
            most = 1 if name == "cores" else 1e9
            fits = type(number) in (int, float) and 0 <= number <= most
            if not fits or (name == "cores" and number == 0):
                raise UserError(
                    f"{what}: {name} is {brief(number)}: links are what `refimpl bench links "
                    f"--json FILE` writes, seconds and seconds per byte under {', '.join(NUMBERS)}"
                )
        a, b, c, d, gamma, cores = (float(plain[name]) for name in NUMBERS)
        return cls(Link(a, b), Link(c, d), gamma, cores)


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
            elements = int(step.elements[which].sum())
            total += (step.times * int(which.sum()), step.times * elements * self.itemsize)
        return total

    def _crosses(self, step: Step) -> NDArray[np.bool_]:
        node = np.asarray(self.nodes)
        crosses: NDArray[np.bool_] = node[step.source] != node[step.dest]
        return crosses

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
        once, after one latency.  Additions and copies come after the message that they wait for.
        Where ranks share cores a step takes no less than what all of a node have to do, a message
        being half the sender's and half the receiver's work.
        """
        return sum(step.times * self._step_time(step, links) for step in self.steps)

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
        worked_on = nbytes * links.gamma * (step.adds | step.copies)
        adding = np.bincount(step.dest, worked_on, len(node))
        seconds = float(max(busy) + adding.max(initial=0.0))
        if links.cores < 1:
            work = np.bincount(step.source, inside / 2, len(node)) + adding
            work += np.bincount(step.dest, inside / 2, len(node))
            shared = np.bincount(node, work) / np.maximum(np.bincount(node), 1) / links.cores
            seconds = max(seconds, float(shared.max()))
        return seconds


def at_once(
    parts: Iterable[tuple[Cost, ArrayLike]], nodes: Sequence[int], itemsize: int = 4
) -> Cost:
    """Return the cost of calls that groups of ranks begin at the same moment.

    ``parts``: what a group's call costs, and its ranks, (p,), or (G, p) of G groups alike.
    ``nodes`` are those of all ranks of the world; a rank stands in one group.  Step s of every
    group is under way together, and the groups on a node share its link.
    """
    schedules = [[step.among(ranks) for step in cost.steps] for cost, ranks in parts]
    return Cost(side_by_side(schedules), tuple(nodes), itemsize)
