"""The gradient axis: how the gradients of one step become one.

Ranks of a gradient group hold the same shard and have seen different data.  A method turns each
rank's shard of its worker's gradient sum into the sum over the group, in place.  Here is the exact
one; its neighbours `gtc` and `onebit` send less.  All of them have::

    combine(gradient)      the sum over the group; collective
    adds_integers          whether it takes the int64 sums of ``--reduction exact``
    statistics()           the last step's numbers
    settle(policy, g)      before models are averaged: what becomes of what is still owed
    state(), load(state)   what the next step depends on, by name
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from refimpl.collectives import Collectives
    from refimpl.world.communicator import Communicator


class GradientAxis:
    """What the step and the trainer ask of a method; a method overrides what it has."""

    adds_integers = False

    def combine(self, gradient: NDArray) -> None:
        """Replace ``gradient`` (shard,) by the sum over the group, in place.  Collective."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers, plain data."""
        return {}

    def warning(self) -> str | None:
        """Return what is set so that training cannot go well, in words."""
        return None

    def settle(self, policy: str, gradient: NDArray) -> bool:
        """Deal with what is owed before models are averaged; return whether a step is due."""
        return False

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, by name; arrays are not copies."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        assert not state


class AllReduce(GradientAxis):
    """The exact sum: one all-reduce of the shard (hop 2 of the two-hop synchronisation).

    Order of summation: that of the collective, see `refimpl.collectives`; with int64 gradients
    (``--reduction exact``) the order does not matter.  Cost: one all-reduce of n/p elements.
    """

    adds_integers = True

    def __init__(self, group: Communicator, collectives: Collectives) -> None:
        self.group, self.collectives = group, collectives

    def combine(self, gradient: NDArray) -> None:
        """Replace ``gradient`` (shard,) by its sum over the group."""
        if self.group.size > 1:
            with self.group.purpose("gradients"):
                self.collectives.allreduce(self.group, gradient)
