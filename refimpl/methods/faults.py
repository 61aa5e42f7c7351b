"""What went wrong in the numbers of a step, kept by the rank that saw it until all ranks meet.

A gradient that is not finite, a term that fixed point has no room for: one rank sees it, and were
it to stop there, the others would wait for it for ever.  Asking all ranks in every step would cost
a message in every step.  So a rank remembers what it saw first, takes NaN for its gradients from
then on (no number that it has afterwards looks like a good one), and sends and receives on; where
the ranks meet anyway, `end` ends the run on all of them, with the step, the unit and the rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refimpl.nn.flat import Layout
from refimpl.support.errors import Diverged
from refimpl.world.communicator import Communicator


class Fault(NamedTuple):
    """What one rank saw in a step; in order, the cause comes before what follows from it."""

    step: int
    late: bool
    rank: int
    what: str


class Faults:
    """The first fault of one rank.

    ``step``: the one that is taken, from 1; it counts on where a replica is taken back.
    """

    def __init__(self, rank: int = 0) -> None:
        self.rank, self.step = rank, 0
        self.first: Fault | None = None
        self.noticed: str | None = None

    def tell(self, what: str, late: bool = False) -> None:
        """Remember what was seen, if it is the first; ``late``: it may follow from another's."""
        if self.first is None:
            self.first = Fault(self.step, late, self.rank, what)

    def notice(self, what: str) -> None:
        """Remember what training can go on with, and its user should know; the last of it."""
        self.noticed = what

    def check(self, gradient: np.ndarray, layout: Layout, members: tuple[int, ...]) -> None:
        """Look through a shard of floats, summed over so many ranks, for NaN and infinity.

        One product g.g, which is finite if all g are, and overflows only beyond 1e19; 0.12 ns a
        value in the cache, 0.5 out of it, where an optimizer takes 2.  Integers have been looked
        at when they were made.
        """
        if gradient.dtype.kind != "f" or np.isfinite(np.dot(gradient, gradient)):
            return
        for unit in layout.units:
            if not np.isfinite(gradient[unit.shard_place]).all():
                where = f", summed over ranks {members}," if len(members) > 1 else ""
                self.tell(f"the gradient of unit {unit.name}{where} is not finite")


def end(comm: Communicator, faults: Faults, remedy: str = "") -> None:
    """Raise `Diverged` on all ranks with the first fault of any, in time.  Collective.

    Called when some rank is known to have one; where none has, nothing is done.
    """
    found = [fault for fault in comm.allgather_object(faults.first) if fault is not None]
    if found:
        first = min(found)
        raise Diverged(
            f"training diverged in step {first.step}: {first.what} on rank {first.rank}{remedy}"
        )
