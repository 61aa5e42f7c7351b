"""What every family of collectives offers: five operations, each in place, each with its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import chunks
from refimpl.collectives.cost import Cost, Step
from refimpl.support.errors import UserError

OPERATIONS = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce")


@dataclass(frozen=True)
class Collectives:
    """A family of collectives: ``collectives.allreduce(comm, x)`` and its four siblings.

    x is a contiguous array (n,), the same length and dtype on all ranks of comm; all of them
    call.  It is cut into p chunks, chunk r rank r's, by `chunks.offsets` or by ``offsets``.

        allgather(comm, x, offsets=None)        all chunks are filled with their owners'
        reduce_scatter(comm, x, offsets=None)   returns the view of x that is this rank's chunk of
                                                the sum; the rest of x is undefined
        allreduce(comm, x)                      x is the sum
        broadcast(comm, x, root=0)              x is the root's
        reduce(comm, x, root=0)                 the root's x is the sum; the others' is undefined

    Any n, 0 included, and any number of ranks.  All-gather and broadcast take any dtype, the
    others those that can be added.
    """

    name: str
    allgather: Callable[..., None]
    reduce_scatter: Callable[..., NDArray]
    allreduce: Callable[..., None]
    broadcast: Callable[..., None]
    reduce: Callable[..., None]
    schedules: Mapping[str, Callable[..., list[Step]]] = field(default_factory=dict, repr=False)

    def has(self, operation: str) -> bool:
        """Tell whether the family states a schedule for this operation."""
        return operation in self.schedules

    def cost(
        self,
        operation: str,
        n: int,
        nodes: tuple[int, ...],
        itemsize: int = 4,
        root: int = 0,
        offsets: Sequence[int] | None = None,
    ) -> Cost:
        """Return the cost of one call with n elements, on ranks that lie on these nodes.

        Raises
        ------
        UserError
            If the family does not have the operation, or does not state what it sends
            (``native``), or cannot run on these nodes.
        """
        if operation not in self.schedules:
            raise UserError(f"collectives {self.name} state no cost for {operation}")
        cut = chunks.offsets(n, len(nodes)) if offsets is None else np.asarray(offsets)
        steps = self.schedules[operation](n=n, sizes=np.diff(cut), nodes=nodes, root=root)
        return Cost(steps, nodes, itemsize)


def missing(name: str, operation: str, instead: str) -> Callable:
    """Return what stands for an operation that a family does not have: it says so."""

    def refuse(*_args, **_kwargs):
        raise UserError(f"collectives {name} have no {operation}: use {instead}")

    return refuse
