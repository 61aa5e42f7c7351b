"""What every family of collectives offers: its operations, each with its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from refimpl.collectives.chunks import Array, Call, Offsets
from refimpl.collectives.cost import Cost, Step, at_once
from refimpl.collectives.order import Orders
from refimpl.support.errors import UserError
from refimpl.world.communicator import Communicator

WORDS = {
    "allgather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "allreduce": "all-reduce",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "alltoall": "all-to-all",
}
OPERATIONS = tuple(WORDS)
ROOTED = ("broadcast", "reduce")  # those that have a root


class Algorithm(NamedTuple):
    """How one operation is done, and what is known of it without doing it.

    ``run(comm, x, offsets)``, ``run(comm, x)`` or ``run(comm, x, root)`` sends the messages,
    ``steps(call)`` is their schedule, ``orders(call)`` the order of summation of an operation
    that adds.  None: not known.
    """

    run: Callable[..., Any]
    steps: Callable[[Call], list[Step]] | None = None
    orders: Callable[[Call], Orders] | None = None


class Collectives(Protocol):
    """A family of collectives: ``collectives.allreduce(comm, x)`` and its siblings.

    x is a contiguous array (n,), the same length and dtype on all ranks of comm; all of them
    call.  It is cut into p chunks, chunk r rank r's, by `chunks.offsets` or by ``offsets``.
    Any n, 0 included, and any number of ranks.  All-gather, broadcast and all-to-all take any
    dtype, the others those that can be added.  Results stand in x; that of an all-to-all cannot.

    A family says which it `has`, what it `refuses`, and which `family` does the work.
    ``ahead(comm, x)`` is an all-gather in steps that the caller takes, `ring.allgather_ahead`;
    None where there is none.
    """

    name: str
    ahead: Callable[[Communicator, Array], Iterator[None]] | None

    def has(self, operation: str) -> bool:
        """Tell whether there is such an operation."""

    def refuses(self, operation: str, nodes: tuple[int, ...]) -> str | None:
        """Return why ranks that lie on these nodes cannot call it; None if they can."""

    def family(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Family:
        """Return the family whose algorithm does a call with n elements: this one, or a choice."""

    # --------------------------------------------------------------------------- the operations

    def allgather(self, comm: Communicator, x: Array, offsets: Offsets | None = None) -> None:
        """Fill all chunks of x with their owners'."""
        self._call("allgather", comm, x, offsets)

    def reduce_scatter(
        self, comm: Communicator, x: Array, offsets: Offsets | None = None
    ) -> Array:
        """Return the view of x that is our chunk of the sum; the rest of x is undefined."""
        own: Array = self._call("reduce_scatter", comm, x, offsets)
        return own

    def allreduce(self, comm: Communicator, x: Array) -> None:
        """Replace x by the sum."""
        self._call("allreduce", comm, x)

    def broadcast(self, comm: Communicator, x: Array, root: int = 0) -> None:
        """Replace x by the root's."""
        self._call("broadcast", comm, x, root)

    def reduce(self, comm: Communicator, x: Array, root: int = 0) -> None:
        """Replace the root's x by the sum; the others' are undefined."""
        self._call("reduce", comm, x, root)

    def alltoall(self, comm: Communicator, x: Array, offsets: Offsets | None = None) -> Array:
        """Return (p, n_r): row s is rank s's chunk r, r being this rank.  x is not modified."""
        came: Array = self._call("alltoall", comm, x, offsets)
        return came

    def _call(self, operation: str, comm: Communicator, x: Array, *more: Any) -> Any:
        family = self.family(operation, x.size, comm.nodes, x.itemsize)
        if not family.has(operation):
            raise UserError(str(family.refuses(operation, comm.nodes)))
        with comm.events.during("collective", f"{family.name}.{operation}", x, x.nbytes):
            return family.algorithms[operation].run(comm, x, *more)

    # ------------------------------------------------------------------- what is known beforehand

    def cost(
        self,
        operation: str,
        n: int,
        nodes: tuple[int, ...],
        itemsize: int = 4,
        root: int = 0,
        offsets: Offsets | None = None,
    ) -> Cost:
        """Return the cost of one call with n elements, on ranks that lie on these nodes.

        Raises `UserError` if the family `refuses`, or does not state what it sends (``native``),
        or states a message of a rank that is not there.
        """
        call = Call.of(n, nodes, root, offsets)
        steps = self._known(operation, call, itemsize).steps
        if steps is None:
            raise UserError(f"collectives {self.name} state no cost for {operation}")
        cost = Cost(steps(call), nodes, itemsize)
        for number, step in enumerate(cost.steps):
            ends = np.concatenate(step[:2])
            for rank in ends[(ends < 0) | (ends >= call.p)]:
                raise UserError(
                    f"collectives {self.name}: step {number} of {operation} names rank {rank}: "
                    f"there are 0 to {call.p - 1}"
                )
        return cost

    def cost_of_groups(
        self,
        operation: str,
        n: int,
        groups: Iterable[Sequence[int]],
        nodes: Sequence[int],
        itemsize: int = 4,
    ) -> Cost:
        """Return the cost of one call in all these groups of ranks, `at_once`."""
        alike: dict[tuple[int, ...], list[Sequence[int]]] = {}
        for group in groups:
            where = [nodes[rank] for rank in group]
            order = {node: i for i, node in enumerate(sorted(set(where)))}
            alike.setdefault(tuple(order[node] for node in where), []).append(group)
        costs = [self.cost(operation, n, where, itemsize) for where in alike]
        return at_once(zip(costs, alike.values(), strict=True), nodes, itemsize)

    def orders(self, operation: str, call: Call, itemsize: int = 4) -> Orders:
        """Return the order of summation of one call: parts that tile x, each with its own.

        Raises `UserError` if the family `refuses`, or states no order: ``native``, and what adds
        nothing.
        """
        orders = self._known(operation, call, itemsize).orders
        if orders is None:
            raise UserError(f"collectives {self.name} state no order of summation for {operation}")
        return orders(call)

    def _known(self, operation: str, call: Call, itemsize: int) -> Algorithm:
        refusal = self.refuses(operation, call.nodes)
        if refusal is not None:
            raise UserError(refusal)
        return self.family(operation, call.n, call.nodes, itemsize).algorithms[operation]


@dataclass(frozen=True)
class Family(Collectives):
    """A family with algorithms of its own, or of another's: operation -> how it is done.

    ``unfit(nodes)`` is why it cannot run on ranks that lie on these nodes; None if it can.
    """

    name: str
    algorithms: dict[str, Algorithm] = field(repr=False)
    unfit: Callable[[tuple[int, ...]], str | None] = lambda nodes: None
    ahead: Callable[[Communicator, Array], Iterator[None]] | None = None

    def has(self, operation: str) -> bool:
        """Tell whether there is such an operation."""
        return operation in self.algorithms

    def refuses(self, operation: str, nodes: tuple[int, ...]) -> str | None:
        """Return why ranks that lie on these nodes cannot call it; None if they can."""
        if self.has(operation):
            return self.unfit(nodes)
        others = "pairwise" if operation == "alltoall" else "ring, halving-doubling"
        return f"collectives {self.name} have no {WORDS[operation]}: use {others} or auto"

    def family(self, operation: str, n: int, nodes: tuple[int, ...], itemsize: int = 4) -> Family:
        """Return this family: it does its work itself."""
        return self
