"""Bytes per rank: what `refimpl.methods.partition.zero` keeps, for units of given sizes.

With P parameters (every unit padded to a multiple of p) and a, g, o bytes per parameter for the
parameter itself, its gradient and the optimizer's state::

    stage   states                          work space, in units of the largest unit U
      0     (a + g + o) P                   g U with more than one micro-step
      1     (a + g) P + (g + o) P / p       g U with more than one micro-step
      2     a P + (g + o) P / p             g U
      3     (a + g + o) P / p               g U + 2 a U     (two gather buffers, in turn)

Stage 0 is p = 1.  In stage 1 the second g P / p holds the reduced gradient.  Activations are the
network's own matter; a user who knows them gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Bytes(NamedTuple):
    """Bytes per parameter: of the parameter, its gradient, and the optimizer's state.

    The default is refimpl's own: float32, and SGD with momentum.  Mixed precision with Adam is
    usually counted as 2 + 2 + 12.
    """

    parameter: float = 4
    gradient: float = 4
    state: float = 4


FLOAT32 = Bytes()


class Memory(NamedTuple):
    """Bytes of one rank."""

    parameters: float
    gradients: float
    optimizer: float
    work: float

    @property
    def total(self) -> float:
        return sum(self)


def per_rank(units: Sequence[int], p: int, stage: int, size: Bytes, microsteps: int) -> Memory:
    """Return the bytes of one rank in a partition group of p.

    >>> per_rank([1000], p=2, stage=3, size=Bytes(2, 2, 12), microsteps=4)
    Memory(parameters=1000, gradients=1000, optimizer=6000, work=6000)
    """
    pieces = [-(-unit // p) for unit in units]
    shard, largest = sum(pieces), max(pieces) * p
    whole = shard * p
    reduced = shard if stage == 1 and p > 1 else 0
    bucket = largest if stage >= 2 or microsteps > 1 else 0
    gathered = 2 * largest if stage == 3 else 0
    return Memory(
        parameters=size.parameter * (shard if stage == 3 else whole),
        gradients=size.gradient * ((shard if stage >= 2 else whole) + reduced),
        optimizer=size.state * shard,
        work=size.gradient * bucket + size.parameter * gathered,
    )
