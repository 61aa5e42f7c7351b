"""One training step in seconds: compute, what travels in the partition group, the second hop.

For every unit u of P_u parameters, with F operations per second, B rows per rank and micro-step,
f operations per parameter and row, M micro-steps, and G all-gathers and S reduce-scatters per
step (`refimpl.methods.partition.stages`: 2 M and M in stage 3; with secondary shards M of the
gathers are T_allgather(P_u / k) among the ranks of the group that are on one node)::

    c_u    = f P_u B / F                            compute of one micro-step
    comm_u = G q T_allgather(P_u / q) + S q T_reduce_scatter(P_u / q)
    T_step = sum over u of  M c_u + max(0, comm_u - w M c_u)   +   T_allreduce(shard)

q: the calls into which a unit's collective is split (1: coalesced), each with an overhead of
``call`` seconds beside its messages; w: the part of the compute time that communication can hide
behind, 0 to 1; with ``gathers_only`` it hides all-gathers, and reduce-scatters are waited for.
The second hop is not hidden.  T is `Collectives.cost_of_groups`': in a step all groups of an axis
call at the same moment, and those on one node share its link.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from refimpl import collectives
from refimpl.collectives.auto import ASSUMED
from refimpl.collectives.cost import Links
from refimpl.methods.partition.memory import FLOAT32, Bytes, Memory, per_rank
from refimpl.methods.partition.stages import partition_calls
from refimpl.world.topology import Grid, Nodes, node_members

FORWARD_BACKWARD = 6  # operations per parameter and row: 2 forward, 4 backward
RECOMPUTED = 8  # the forward pass once more


@dataclass(frozen=True)
class Model:
    """A network as the planner sees it.

    ``units``: parameters of each.  ``rows``: rows (samples, frames, tokens) of a rank's
    micro-batch.  ``operations``: per parameter and row, forward and backward together.
    """

    units: tuple[int, ...]
    rows: float
    operations: float = FORWARD_BACKWARD
    size: Bytes = FLOAT32

    @property
    def parameters(self) -> int:
        return sum(self.units)


@dataclass(frozen=True)
class Cluster:
    """n ranks on nodes of k; each computes ``flops`` operations per second.

    ``call``: seconds that every call of a collective takes beside its messages.
    """

    ranks: int
    ranks_per_node: int
    flops: float
    links: Links
    call: float = 0.0


@dataclass(frozen=True)
class Method:
    """How the model states are cut and how they travel; see the module's equations.

    ``family``: the collectives; ``links`` are what ``auto`` chooses by.  ``calls``: q.
    ``overlap``: w; with ``gathers_only`` that of gathers, and reduce-scatters are waited for.
    ``every_microstep``: the second hop in every micro-step, what two-hop synchronisation improves
    on.  ``secondary``: with secondary shards (stage 3).
    """

    partition: int
    microsteps: int = 1
    stage: int = 3
    family: str = "ring"
    calls: int = 1
    overlap: float = 0.0
    every_microstep: bool = False
    gathers_only: bool = False
    secondary: bool = False
    links: Links = ASSUMED


class Split(NamedTuple):
    """Seconds of one step, and the bytes that all ranks together send to other nodes in it.

    ``hidden``: the part of gather and reduce-scatter behind compute.
    """

    compute: float
    gather: float
    reduce_scatter: float
    hidden: float
    second_hop: float
    between: int

    @property
    def step(self) -> float:
        """The seconds that pass."""
        return self.compute + self.gather + self.reduce_scatter - self.hidden + self.second_hop

    def plain(self) -> dict[str, float]:
        """Return all seconds by name."""
        parts = self._asdict()
        del parts["between"]
        return {"step": self.step, **parts}


def predict(model: Model, cluster: Cluster, method: Method) -> Split | None:
    """Return the predicted times of one step; None if the collectives cannot run on these groups.

    Raises `UserError` if p does not divide n.
    """
    n, p, links = cluster.ranks, method.partition, cluster.links
    Grid.cut(n, p)
    family = collectives.get(method.family, method.links)
    node = Nodes.of(n, cluster.ranks_per_node).node
    rows, columns = [range(r, r + p) for r in range(0, n, p)], [range(r, n, p) for r in range(p)]
    near = near_groups(cluster, p) if method.secondary else []
    assert method.stage == 3 or not near, "secondary shards are for stage 3"
    calls = partition_calls(method.stage, method.microsteps, method.every_microstep)
    size, between = model.size, 0

    def collective(
        operation: str, chunk: float, p: int, groups: Sequence[Sequence[int]], times: int
    ) -> float:
        """Return the seconds of so many calls with p chunks of so many bytes."""
        nonlocal between
        if times == 0 or all(len(group) == 1 for group in groups):
            return 0.0
        if any(family.refuses(operation, tuple(node[r] for r in group)) for group in groups):
            return math.inf
        cost = family.cost_of_groups(operation, math.ceil(chunk) * p, groups, node, 1)
        between += times * cost.total()["inter"].bytes
        return times * (cluster.call + cost.time(links))

    compute = gather = reduce_scatter = hidden = 0.0
    for unit, count in Counter(model.units).items():
        piece, times = unit / method.calls / p, count * method.calls
        chunk, kept = piece * size.parameter, method.microsteps if method.secondary else 0
        gathering = collective("allgather", chunk, p, rows, times * (calls.allgather - kept))
        gathering += collective("allgather", chunk, p, near, times * kept)
        chunk, times = piece * size.gradient, times * calls.reduce_scatter
        scattering = collective("reduce_scatter", chunk, p, rows, times)
        computing = method.microsteps * model.operations * unit * model.rows / cluster.flops
        compute += count * computing
        gather += gathering
        reduce_scatter += scattering
        hiding = gathering + (0.0 if method.gathers_only else scattering)
        hidden += min(hiding, method.overlap * count * computing)

    chunk = shard(model.units, p) * size.gradient * p / n
    hops = method.microsteps if method.every_microstep else 1
    hop = collective("allreduce", chunk, n // p, columns, hops)
    split = Split(compute, gather, reduce_scatter, hidden, hop, between)
    return split if math.isfinite(split.step) else None


def near_groups(cluster: Cluster, p: int) -> list[list[int]]:
    """Return the ranks of each partition group on each of its nodes: who keeps secondary shards.

    >>> near_groups(Cluster(8, 3, 1.0, ASSUMED), p=4)
    [[0, 1, 2], [3], [4, 5], [6, 7]]
    """
    node = Nodes.of(cluster.ranks, cluster.ranks_per_node).node
    return [
        [first + member for member in members]
        for first in range(0, cluster.ranks, p)
        for members in node_members(node[first : first + p])
    ]


def shard(units: Sequence[int], p: int) -> int:
    """Return the parameters of one shard, padding included.

    >>> shard([5, 2], 2), shard([5, 2], 3)
    (4, 3)
    """
    return sum(-(-unit // p) for unit in units)


def tflops(model: Model, method: Method, seconds: float) -> float:
    """Return the 10^12 operations per second and rank, those of recomputation included."""
    work = model.operations * model.parameters * model.rows * method.microsteps
    return work / seconds / 1e12


def memory(model: Model, method: Method, fewest: int = 1) -> Memory:
    """Return the bytes per rank: p = 1 shards nothing, and hiding messages needs a second buffer.

    While a unit computes, the messages that it hides make the next one whole.  ``fewest``: ranks
    of a partition group on the node that has the fewest of them, for secondary shards.
    """
    p, stage = method.partition, method.stage if method.partition > 1 else 0
    return per_rank(
        model.units,
        p,
        stage,
        model.size,
        microsteps=method.microsteps,
        prefetch=method.overlap > 0,
        near=fewest if method.secondary and stage == 3 else None,
    )


def transformer(layers: int, hidden: int) -> tuple[int, ...]:
    """Return the units of ``layers`` transformer layers: 12 h^2 each, embeddings left out.

    >>> sum(transformer(80, 10240))
    100663296000
    """
    return (12 * hidden * hidden,) * layers


def perceptron(widths: Sequence[int]) -> tuple[int, ...]:
    """Return the units of affine layers between these widths, weights and biases.

    >>> perceptron([440, 1024, 128])
    (451584, 131200)
    """
    return tuple((a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
