"""The block axis: DiLoCo, an outer optimizer that steps on what blocks of local training found.

Every group trains alone for a block of steps, all from the same W, by an optimizer whose moments
it keeps.  Then, with nu the outer learning rate, mu the outer momentum and u its memory:

    a = W - mean of the groups' models      the pseudo-gradient: against it lies what was found
    u = mu u + a
    W = W - nu (a + mu u)                   Nesterov's SGD, and where the next block starts

u is zero at first.  W is what is evaluated and saved.  mu = 0 and nu = 1 is plain averaging, local
SGD: W is the mean (to rounding: it is computed as W less the step back).

These are BMUF's starts, by another name: NBM with eta = mu and zeta = nu starts its blocks at
these W and has D = -nu u.  It evaluates W + nu mu u, the model without the look-ahead.

*Streaming*: the units are dealt out to fragments, runs of neighbours, and every sync is about one
of them, in turn; the others train on.  Its mean can be that of the models some steps ago, so that
messages have so long to arrive, and what the group has meanwhile found by itself is kept in part:

    w = W + alpha (w - W)                   on the fragment; alpha = 0: w = W

Whoever closes (evaluates, or ends) synchronises all fragments at once, as they are, and w = W.

The rule looks at one value at a time: shards take the same steps as the whole, to the bit.

References: A. Douillard et al., "DiLoCo: Distributed low-communication training of language
models", arXiv 2311.08105; "Streaming DiLoCo with overlapping communication", arXiv 2501.18512.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refimpl.collectives import chunks
from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.block import averaging
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.options import POSITIVE, Check, least, option
from refimpl.methods.protocol import BlockAxis, BlockMethod, Context
from refimpl.nn.flat import Layout
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import require

# Values per pass: W, the mean, u and the temporaries of `outer_step` stay in the cache.
STRIP = 1 << 15


def outer_step(
    model: np.ndarray, memory: np.ndarray, mean: np.ndarray, rate: float, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return W and u after a block that started from W (n,) and ended at ``mean`` (n,) on average.

    Blocks that find +1 each time; what the momentum has gathered carries W beyond:

    >>> w, u = np.zeros(1), np.zeros(1)
    >>> for _ in range(2):
    ...     w, u = outer_step(w, u, w + 1, rate=1.0, momentum=0.5)
    ...     print(w, u)
    [1.5] [-1.]
    [3.25] [-1.5]
    """
    found = model - mean
    memory = momentum * memory + found
    return model - rate * (found + momentum * memory), memory


@dataclass(frozen=True)
class DiLoCo(BlockMethod):
    """Models, averaged, and an outer optimizer on the way to their mean."""

    name: ClassVar[str] = "diloco"
    title: ClassVar[str] = "outer optimizer on averaged models (DiLoCo)"

    steps: int = averaging.steps_option()
    warm: int = averaging.warm_start_option()
    rate: float = option("--outer-lr", 0.7, "nu, the outer learning rate (default: 0.7)", POSITIVE)
    momentum: float = option(
        "--outer-momentum",
        0.9,
        "mu, the outer (Nesterov's) momentum (default: 0.9)",
        Check(lambda mu: 0 <= mu < 1, "at least 0 and less than 1"),
    )

    fragments: int = option(
        "--fragments", 1, "parts of the model, of which a sync is about one, in turn", least(1)
    )
    delay: int = option(
        "--fragment-delay", 0, "steps that a fragment's mean is older than its sync", least(0)
    )
    alpha: float = option(
        "--fragment-alpha",
        0.0,
        "what a sync leaves of a group's own way (default: 0, nothing)",
        Check(lambda alpha: 0 <= alpha <= 1, "at least 0 and at most 1"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.delay < self.steps,
            f"--fragment-delay {self.delay}: must be less than --block-steps {self.steps}",
        )

    @property
    def together(self) -> bool:
        """Whether all groups hold one model after every sync: one fragment, nothing kept."""
        return self.fragments == 1 and self.alpha == 0

    def parts(self, layout: Layout) -> list[slice]:
        """Return the fragments as parts of a shard."""
        ends = [0, *(unit.shard_place.stop for unit in layout.units)]
        cut = chunks.offsets(len(layout.units), self.fragments)
        return chunks.between([ends[unit] for unit in cut])

    def build(self, context: Context) -> OuterOptimizer:
        """Return the outer optimizer of one rank.  More fragments than units are refused."""
        units = len(context.layout.units)
        require(
            self.fragments <= units,
            f"--fragments {self.fragments}: a fragment is one unit of the model at least, and it "
            f"has {units}: give at most {units}",
        )
        return OuterOptimizer(self, context)

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return blocks of three steps, or shorter ones, and a rule in which little is rounded."""
        return {"steps": min(3, steps), "rate": 0.5, "momentum": 0.5}

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield what a sync sends for each fragment that it is about: `averaging.calls`.

        Without statistics, for the first fragment.
        """
        parts = self.parts(setting.layout)
        for fragment in statistics[0]["fragments"] if statistics else [0]:
            yield from averaging.calls(setting, parts[fragment].stop - parts[fragment].start)


class OuterOptimizer(BlockAxis):
    """The outer optimizer's state on one rank, and the messages of a synchronisation.

    The optimizer of the local steps keeps its state over a sync.

    Attributes
    ----------
    model, memory : (shard,) arrays
        W and u, once `begin` was called.
    prepared : (shard,) array
        With a delay: the group's model, so many steps before the coming sync.
    synchronised : int
        How many blocks are over.
    """

    resets = False

    def __init__(self, options: DiLoCo, context: Context) -> None:
        self.options, self.partition = options, context.groups.partition
        self.average = averaging.Mean(context)
        self.steps, self.early, self.synchronised = options.steps, options.delay, 0
        self.parts, self.together = options.parts(context.layout), True
        self.model = self.memory = self.prepared = np.empty(0, context.dtype)
        self._last: list[int] = []

    def begin(self, weights: np.ndarray) -> None:
        """Take the initial model (shard,), the same on all ranks with this shard, as W."""
        self.model, self.memory = weights.copy(), np.zeros_like(weights)
        self.prepared = np.zeros_like(weights if self.early else weights[:0])

    def prepare(self, weights: np.ndarray) -> None:
        """Take the models that the coming sync averages.  (Their messages are sent by then.)"""
        self.prepared[:] = weights

    def sync(self, weights: np.ndarray, closing: bool = False) -> None:
        """End the block: bring a fragment of the ``weights`` (shard,) to W, but for alpha.

        Afterwards weights are W if there is one fragment and no alpha, or if it is ``closing``.
        Collective over all ranks with this shard.  Order of summation and cost: those of `Mean`.
        """
        assert self.model.shape == weights.shape, "begin() is called before the first block"
        self._last = [self.synchronised % len(self.parts)]
        if closing:
            self._last = list(range(len(self.parts)))
        alpha = 0.0 if closing else self.options.alpha
        for part in (self.parts[fragment] for fragment in self._last):
            mean = weights[part].copy() if alpha else weights[part]
            if self.early and not closing:
                mean = self.prepared[part]
            self.average(mean)
            self._step(part, mean)
            kept = alpha * (weights[part] - self.model[part]) if alpha else 0
            weights[part] = self.model[part] + kept
        self.together = closing or self.options.together
        self.synchronised += 1

    def _step(self, part: slice, mean: np.ndarray) -> None:
        """Let the outer optimizer move a part of the model, strip by strip."""
        rate, momentum = self.options.rate, self.options.momentum
        model, memory = self.model[part], self.memory[part]
        for first in range(0, mean.size, STRIP):
            strip = slice(first, first + STRIP)
            model[strip], memory[strip] = outer_step(
                model[strip], memory[strip], mean[strip], rate, momentum
            )

    def said(self) -> Statistics:
        """Return which fragments the last sync was about."""
        return {"fragments": self._last}

    def start(self) -> np.ndarray:
        """Return where the block that begins starts from (shard,), all being together: W."""
        return self.model

    def statistics(self) -> dict[str, Any]:
        """Return how many blocks are over, and the norm of u over all shards.

        Collective over the partition group; the same on all its ranks.
        """
        norm = GlobalNorm()(self.partition, self.memory)
        return {"synchronised": self.synchronised, "outer_momentum_norm": norm}

    def state(self) -> Tree:
        """Return W and u, equal on all ranks with this shard, and what a delay has prepared."""
        late = {"prepared": Leaf(self.prepared, "block")} if self.early else {}
        return {
            "global_model": Leaf(self.model, "shard"),
            "outer_momentum": Leaf(self.memory, "shard"),
            "synchronised": Leaf(self.synchronised),
            "together": Leaf(self.together),
            **late,
        }

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.model = tree["global_model"].value.copy()
        self.memory = tree["outer_momentum"].value.copy()
        self.synchronised = int(tree["synchronised"].value)
        self.together = bool(tree["together"].value)
        if self.early:
            self.prepared[:] = tree["prepared"].value
