"""One training step in seconds: compute, what travels in the partition group, the second hop.

For every unit u of P_u parameters, with F operations per second, B rows per rank and micro-step,
f operations per parameter and row, M micro-steps, and G all-gathers and S reduce-scatters per
step (`refimpl.methods.partition.stages`: 2 M and M in stage 3)::

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
from refimpl.collectives.cost import Links
from refimpl.methods.partition.memory import FLOAT32, Bytes, Memory, per_rank
from refimpl.methods.partition.stages import partition_calls
from refimpl.world.topology import Grid, Nodes

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

    ``family``: the collectives.  ``calls``: q.  ``overlap``: w; with ``gathers_only`` that of
    gathers, and reduce-scatters are waited for.  ``every_microstep``: the second hop in every
    micro-step, what two-hop synchronisation improves on.
    """

    partition: int
    microsteps: int = 1
    stage: int = 3
    family: str = "ring"
    calls: int = 1
    overlap: float = 0.0
    every_microstep: bool = False
    gathers_only: bool = False


class Split(NamedTuple):
    """Seconds of one step.  ``hidden``: the part of gather and reduce-scatter behind compute."""

    compute: float
    gather: float
    reduce_scatter: float
    hidden: float
    second_hop: float

    @property
    def step(self) -> float:
        """The seconds that pass."""
        return self.compute + self.gather + self.reduce_scatter - self.hidden + self.second_hop


def predict(model: Model, cluster: Cluster, method: Method) -> Split | None:
    """Return the predicted times of one step; None if the collectives cannot run on these groups.

    Raises `UserError` if p does not divide n.
    """
    n, p, links = cluster.ranks, method.partition, cluster.links
    Grid.cut(n, p)
    family, node = collectives.get(method.family), Nodes.of(n, cluster.ranks_per_node).node
    rows, columns = [range(r, r + p) for r in range(0, n, p)], [range(r, n, p) for r in range(p)]
    calls = partition_calls(method.stage, method.microsteps, method.every_microstep)
    size = model.size

    def collective(operation: str, chunk: float, groups: list[range]) -> float:
        members = len(groups[0])
        if members == 1:
            return 0.0
        if any(family.refuses(operation, tuple(node[r] for r in group)) for group in groups):
            return math.inf
        nbytes = math.ceil(chunk) * members
        return cluster.call + family.cost_of_groups(operation, nbytes, groups, node, 1).time(links)

    compute = gather = reduce_scatter = hidden = 0.0
    for unit, count in Counter(model.units).items():
        piece = unit / method.calls / p
        computing = method.microsteps * model.operations * unit * model.rows / cluster.flops
        gathering = scattering = 0.0
        if calls.allgather:
            once = collective("allgather", piece * size.parameter, rows)
            gathering = calls.allgather * method.calls * once
        if calls.reduce_scatter:
            once = collective("reduce_scatter", piece * size.gradient, rows)
            scattering = calls.reduce_scatter * method.calls * once
        compute += count * computing
        gather += count * gathering
        reduce_scatter += count * scattering
        hiding = gathering + (0.0 if method.gathers_only else scattering)
        hidden += count * min(hiding, method.overlap * computing)

    chunk = shard(model.units, p) * size.gradient * p / n
    hops = method.microsteps if method.every_microstep else 1
    split = Split(
        compute, gather, reduce_scatter, hidden, hops * collective("allreduce", chunk, columns)
    )
    return split if math.isfinite(split.step) else None


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


def memory(model: Model, method: Method) -> Memory:
    """Return the bytes per rank: p = 1 shards nothing, and hiding messages needs a second buffer.

    While a unit computes, the messages that it hides make the next one whole.
    """
    p, stage = method.partition, method.stage if method.partition > 1 else 0
    return per_rank(
        model.units,
        p,
        stage,
        model.size,
        microsteps=method.microsteps,
        prefetch=method.overlap > 0,
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
