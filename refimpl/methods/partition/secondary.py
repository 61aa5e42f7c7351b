"""Secondary shards: what a forward pass has gathered stays on the node for the backward pass.

Stage 3 gathers every unit twice in a micro-step, and between the two its parameters do not change.
So the k ranks of a partition group that are on one node keep a k-th of every unit each, when it is
whole for the forward pass, and gather it from each other for the backward pass::

    forward    all-gather among all p ranks   | keep this rank's k-th     V/k bytes more a rank
    backward   all-gather among the k ranks of the node                   nothing crosses nodes

Between nodes a micro-step then carries a gather and a reduce-scatter, 2 V (p - 1)/p, instead of
two gathers and a reduce-scatter.  The same parameters, so the same bits.

This is hpZ, the hierarchical partitioning of ZeRO++ (DeepSpeed).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from refimpl.collectives import Collectives, chunks
from refimpl.world.communicator import Communicator


class Secondary:
    """This rank's secondary shard.

    Parameters
    ----------
    partition : Communicator
        The partition group.  Collective in it.
    seats : sequence of (padded,) arrays
        Where units are whole, by number.
    dtype : dtype
        Of parameters.

    Attributes
    ----------
    group : Communicator
        The k members of the partition group on this node.
    shard : array
        A k-th of every unit, end to end; written by every forward pass before it is read, so no
        state of the run.
    """

    def __init__(
        self, partition: Communicator, seats: Sequence[np.ndarray], dtype: DTypeLike
    ) -> None:
        self.group, _ = partition.levels()
        cuts = [chunks.slices(seat, self.group.size)[self.group.rank] for seat in seats]
        ends = np.cumsum([0, *(cut.stop - cut.start for cut in cuts)])
        self.shard = np.zeros(int(ends[-1]), dtype)
        self._places = list(zip(cuts, chunks.between(ends), strict=True))

    def keep(self, number: int, seat: np.ndarray) -> None:
        """Keep this rank's part of a unit that is whole in its seat."""
        cut, own = self._places[number]
        self.shard[own] = seat[cut]

    def gather(self, number: int, seat: np.ndarray, collectives: Collectives) -> None:
        """Make a unit whole in its seat, as the node kept it.  One all-gather inside the node."""
        cut, own = self._places[number]
        seat[cut] = self.shard[own]
        with self.group.purpose("parameters"):
            collectives.allgather(self.group, seat)
