"""Prefetch: the next unit's parameters are on their way while one computes (stage 3).

There are two gather buffers, and units alternate between them.  Before a unit computes, the
messages that bring the next one are started; its own `gather` completes them::

    without    | gather 0 | compute 0 | gather 1 | compute 1 | gather 2 | compute 2
    with       | gather 0 | compute 0            | compute 1            | compute 2
                          | gather 1 ...         | gather 2 ...
    buffer          A           B                      A

The same messages and the same bits; only MPI decides how much of a message moves meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from refimpl.world.communicator import Communicator


class Prefetch:
    """At most one unit's gather, under way.

    Parameters
    ----------
    partition : Communicator
        The partition group.
    ahead : function
        The all-gather in steps, of the collectives (`Collectives.ahead`).
    seated : function
        number of a unit -> its gather buffer, with this rank's piece in its place.
    units : int
        How many there are.
    """

    def __init__(
        self,
        partition: Communicator,
        ahead: Callable[[Communicator, np.ndarray], Iterator[None]],
        seated: Callable[[int], np.ndarray],
        units: int,
    ) -> None:
        self.partition, self.ahead, self.seated, self.units = partition, ahead, seated, units
        self._coming: tuple[int, Iterator[None]] | None = None

    @property
    def idle(self) -> bool:
        """Whether no gather is under way."""
        return self._coming is None

    def start(self, number: int) -> None:
        """Start to gather a unit, if there is one of this number."""
        if 0 <= number < self.units:
            self._coming = number, self.ahead(self.partition, self.seated(number))
            self.advance()

    def advance(self) -> None:
        """Take one step of the gather that is under way, if any."""
        if self._coming is not None:
            with self.partition.purpose("parameters"):
                next(self._coming[1], None)

    def complete(self, number: int) -> bool:
        """Wait for the gather of a unit; return whether it was under way."""
        if self._coming is None:
            return False
        coming, steps = self._coming
        assert coming == number, f"unit {coming} was prefetched, not {number}"
        with self.partition.purpose("parameters"):
            for _ in steps:
                pass
        self._coming = None
        return True
