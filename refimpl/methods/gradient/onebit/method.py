"""The gradient axis with one bit per value: the dense sibling of `gtc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.collectives import chunks
from refimpl.methods import dense
from refimpl.methods.gradient.exact import GradientAxis
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.support.errors import require

if TYPE_CHECKING:
    from refimpl.collectives import Collectives
    from refimpl.numerics.exact import FixedPoint
    from refimpl.world.communicator import Communicator


class OneBit(GradientAxis):
    """Combines the gradients of a group by their signs, with error feedback on both sides.

    Parameters
    ----------
    group : Communicator
        The g ranks with this shard and other data.
    collectives : Collectives
        For the dense sums of the warm-up.
    n : int
        The length of the gradient.
    dtype : dtype
        float32 or float64.
    warmup : int
        Steps with the dense sum before the first compressed one.
    fixed : FixedPoint, optional
        For the dense sums (``--reduction exact``).  The compressed ones have a scale per chunk,
        a float mean: they depend on how the vector is cut, and so on g.
    """

    def __init__(
        self,
        group: Communicator,
        collectives: Collectives,
        n: int,
        dtype: DTypeLike,
        *,
        warmup: int = 0,
        fixed: FixedPoint | None = None,
    ) -> None:
        require(warmup >= 0, f"{warmup} dense warm-up steps: must be at least 0")
        self.group, self.collectives, self.warmup, self.fixed = group, collectives, warmup, fixed
        cut = chunks.offsets(n, group.size)
        self.step = 0
        self.residual = np.zeros(n, dtype)
        self.owned = np.zeros(int(cut[group.rank + 1] - cut[group.rank]), dtype)

    def combine(self, gradient: NDArray) -> None:
        """Replace ``gradient`` (n,) by what the group makes of its sum, in place.  Collective."""
        with self.group.purpose("gradients"):
            if self.step < self.warmup:
                dense.allreduce(self.group, self.collectives, gradient, self.fixed)
            else:
                onebit.allreduce(self.group, gradient, self.residual, self.owned)
        self.step += 1

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers, plain data; empty before the first.

        ``dense``: whether it was a warm-up step; else ``message_bytes``, all that this rank sent
        for its gradient, and ``residual`` and ``owned``, the largest of each.
        """
        if self.step == 0:
            return {}
        if self.step <= self.warmup:
            return {"dense": True}
        sent = onebit.cost(self.residual.size, self.group.nodes).sent_by(self.group.rank)
        return {
            "dense": False,
            "message_bytes": sum(count.bytes for count in sent.values()),
            "residual": float(np.abs(self.residual).max(initial=0)),
            "owned": float(np.abs(self.owned).max(initial=0)),
        }

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, by name; arrays are not copies."""
        return {"residual": self.residual, "owned": self.owned, "step": self.step}

    def load(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        self.residual[:], self.owned[:] = state["residual"], state["owned"]
        self.step = int(state["step"])
