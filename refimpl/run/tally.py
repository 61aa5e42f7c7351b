"""What gathers on a rank while a run goes on, from one report to the next.

A run that is interrupted goes on with it, so that its lines are those of an uninterrupted run.
"""

from __future__ import annotations

import time

from refimpl.methods.losses import Loss
from refimpl.state import tree
from refimpl.state.tree import Leaf, Tree
from refimpl.world.ledger import LINKS, Count, Ledger


class Tally:
    """Steps, losses and messages of one rank since `begin`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self.steps, self.losses = 0, Loss()
        self._before = self.ledger.totals()

    def add(self, loss: Loss) -> None:
        """Count a step and its sum of losses."""
        self.steps += 1
        self.losses += loss

    def sent(self) -> dict[str, Count]:
        """Return what this rank has sent, per class of link."""
        now = self.ledger.totals()
        return {link: now[link] - self._before[link] for link in LINKS}

    def leaf(self) -> Leaf:
        """Return all of it as this rank's part of a sum."""
        sent = self.sent()
        counts = [number for link in LINKS for number in sent[link]]
        return Leaf([self.steps, self.losses.units, int(not self.losses.finite), *counts], "part")

    def load(self, leaf: Leaf) -> None:
        """Go on from what `leaf` returned."""
        self.begin()
        self.steps, units, faulty, *counts = leaf.value
        self.losses = Loss(units, not faulty)
        for link, messages, nbytes in zip(LINKS, counts[::2], counts[1::2], strict=True):
            self._before[link] -= Count(messages, nbytes)


class Epoch(Tally):
    """The tally of an epoch.

    Attributes
    ----------
    first : int
        Steps taken before it.
    saved : Tree
        The replica's state then, as copies, for a schedule that may go back to it; else empty.
    seconds : float
        How long its steps took on this rank, up to the last `lap`.
    """

    def __init__(self, first: int, ledger: Ledger, saved: Tree) -> None:
        self.first, self.saved, self.seconds = first, saved, 0.0
        self.resume()
        super().__init__(ledger)

    def resume(self) -> None:
        """Let time count from here."""
        self._since = time.perf_counter()

    def lap(self) -> None:
        """Add the time since the last lap, or since `resume`."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

    def state(self) -> Tree:
        """Return all of it; of the seconds, the first rank's will do for all."""
        self.lap()
        return {
            "first": Leaf(self.first),
            "seconds": Leaf(self.seconds),
            "tally": self.leaf(),
            **tree.under("saved", self.saved),
        }

    def restore(self, state: Tree) -> None:
        """Go on from what `state` returned."""
        self.load(state["tally"])
        self.first, self.seconds = state["first"].value, state["seconds"].value
        self.saved = tree.copied(tree.branch(state, "saved"))
