"""A user's own model: what every partition group size costs, and which one to take.

The rule is that of MiCS: the smallest p whose memory fits.  Small groups keep the messages of
every micro-step near; only memory asks for large ones.  For each p the collectives are the
family with the shortest predicted step, in which only that is hidden which ``--prefetch`` hides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from refimpl import collectives
from refimpl.collectives.families import EXPLICIT
from refimpl.methods.partition.memory import Memory
from refimpl.methods.partition.stages import Sharded
from refimpl.plan.model import Cluster, Method, Model, Split, memory, near_groups, predict
from refimpl.world.topology import Grid, divisors

STAGES = (1, 2, 3)
NEEDED = ("allgather", "reduce_scatter", "allreduce")
FAMILIES = [f.name for f in EXPLICIT if all(f.has(operation) for operation in NEEDED)]


@dataclass(frozen=True)
class Question:
    """What the user says; ``memory``: bytes a rank has, None for any amount.

    ``activations``: bytes that a rank needs beside the model states.  ``method.partition`` is
    not read.
    """

    model: Model
    cluster: Cluster
    method: Method
    memory: float | None = None
    activations: float = 0.0


class Choice(NamedTuple):
    """One partition group size.

    ``times``: the predicted step of each family that can run, in seconds; ``family`` has the
    shortest, and ``split`` says where it goes.  ``prefetch``: whether it hides gathers.
    ``memory``: by stage; p = 1 shards nothing.  ``needed``: bytes of the asked stage, activations
    included.
    """

    partition: int
    replicas: int
    family: str
    split: Split
    times: dict[str, float]
    prefetch: bool
    memory: dict[int, Memory]
    needed: float
    fits: bool


class Advice(NamedTuple):
    """The table over all p that divide n, rising, and the p to take: None if nothing fits."""

    question: Question
    choices: list[Choice]
    recommended: Choice | None
    fastest: Choice | None

    def choice(self, p: int) -> Choice:
        """Return the row of a group size."""
        return next(choice for choice in self.choices if choice.partition == p)


def advise(question: Question, partition: int | None = None) -> Advice:
    """Return the advice for a question.

    Raises `UserError` if ``partition`` does not divide the number of ranks.
    """
    n = question.cluster.ranks
    if partition is not None:
        Grid.cut(n, partition)
    choices = [weigh(question, p) for p in divisors(n)]
    fitting = [choice for choice in choices if choice.fits]
    fastest = min(fitting, key=lambda choice: choice.split.step, default=None)
    return Advice(question, choices, fitting[0] if fitting else None, fastest)


def weigh(question: Question, p: int) -> Choice:
    """Return what groups of p cost; where one more unit has no room, none is gathered ahead."""
    model, cluster, asked = question.model, question.cluster, question.method
    splits, methods = {}, {}
    for family in FAMILIES:
        methods[family] = method = _hiding(replace(asked, partition=p, family=family))
        split = predict(model, cluster, method)
        if split is not None:
            splits[family] = split
    best = min(splits, key=lambda family: splits[family].step)
    fewest = min(map(len, near_groups(cluster, p))) if asked.secondary else 1
    kept = {s: memory(model, replace(methods[best], stage=s), fewest) for s in STAGES}
    needed = kept[asked.stage].total + question.activations
    fits = question.memory is None or needed <= question.memory
    if methods[best].overlap and not fits:
        return weigh(replace(question, method=replace(asked, overlap=0.0)), p)
    return Choice(
        partition=p,
        replicas=cluster.ranks // p,
        family=best,
        split=splits[best],
        times={family: split.step for family, split in splits.items()},
        prefetch=methods[best].overlap > 0,
        memory=kept,
        needed=needed,
        fits=fits,
    )


def _hiding(method: Method) -> Method:
    """Return the method, which hides gathers where ``--prefetch`` does, and else nothing."""
    ahead = Sharded(method.stage, prefetch=True, secondary=method.secondary)
    refused = method.partition == 1 or ahead.refusal(collectives.get(method.family))
    return replace(method, gathers_only=True, overlap=0.0 if refused else method.overlap)
