"""Bytes of one rank of a partition group, in closed form: what `ModelStates` allocates.

P: parameters, every unit padded to a multiple of p; U: those of the largest unit; a, z, o: bytes
per parameter of the parameter itself, its gradient and the optimizer's state; e: bytes of a number
in a sum of gradients, z or, with ``exact``, 8::

    stage  parameters  gradients  optimizer     bucket  gathered  reduced  encoded  secondary
      0      a P         e P        o P          z U       -         -       8 U        -
      1      a P         e P        o P / p      z U       -       e P / p   8 U        -
      2      a P         e P / p    o P / p      z U       -         -       8 U        -
      3      a P / p     e P / p    o P / p      z U      a U        -       8 U      a P / k

The first three are the model states, kept from one micro-step to the next; the others are work
space.  No bucket in stages 0 and 1 with one micro-step, unless ``exact``: the gradient is computed
where it is kept.  Gathered is 2 a U with ``prefetch``; there is nothing to reduce if p = 1, and
nothing encoded unless ``exact``.  A secondary shard is there on request, for a node that holds
``near`` = k ranks of the group, k a divisor of p.  Activations are the network's own matter.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """Bytes of one rank, by what they hold; see the module's table."""

    parameters: float
    gradients: float
    optimizer: float
    bucket: float
    gathered: float
    reduced: float
    encoded: float
    secondary: float = 0

    @property
    def states(self) -> float:
        """Model states."""
        return sum(self[:3])

    @property
    def work(self) -> float:
        """Work space."""
        return sum(self[3:])

    @property
    def total(self) -> float:
        """Both."""
        return sum(self)


def per_rank(
    units: Iterable[int],
    p: int,
    stage: int,
    each: Bytes = FLOAT32,
    *,
    microsteps: int = 1,
    exact: bool = False,
    prefetch: bool = False,
    near: int | None = None,
) -> Memory:
    """Return the bytes of one rank, for units of these sizes in a partition group of p.

    >>> memory = per_rank([1000, 10], p=2, stage=3, each=Bytes(2, 2, 12), microsteps=4)
    >>> memory.states == 16 * 1010 / 2, memory.work == 4 * 1000
    (True, True)
    """
    pieces = [-(-unit // p) for unit in units]
    shard, largest = sum(pieces), p * max(pieces, default=0)
    whole, summed = p * shard, 8 if exact else each.gradient
    direct = stage < 2 and microsteps == 1 and not exact
    return Memory(
        parameters=each.parameter * (shard if stage == 3 else whole),
        gradients=summed * (shard if stage >= 2 else whole),
        optimizer=each.state * shard,
        bucket=0 if direct else each.gradient * largest,
        gathered=(1 + prefetch) * each.parameter * largest if stage == 3 else 0,
        reduced=summed * shard if stage == 1 and p > 1 else 0,
        encoded=8 * largest if exact else 0,
        secondary=each.parameter * sum(-(-p * piece // near) for piece in pieces) if near else 0,
    )
