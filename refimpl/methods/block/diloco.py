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

The rule looks at one value at a time: shards take the same steps as the whole, to the bit.

References: A. Douillard et al., "DiLoCo: Distributed low-communication training of language
models", arXiv 2311.08105.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.block import averaging
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.options import POSITIVE, Check, option
from refimpl.methods.protocol import BlockAxis, BlockMethod, Context
from refimpl.state.tree import Leaf, Tree

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
    rate: float = option("--outer-lr", 0.7, "nu, the outer learning rate (default: 0.7)", POSITIVE)
    momentum: float = option(
        "--outer-momentum",
        0.9,
        "mu, the outer (Nesterov's) momentum (default: 0.9)",
        Check(lambda mu: 0 <= mu < 1, "at least 0 and less than 1"),
    )

    def build(self, context: Context) -> OuterOptimizer:
        """Return the outer optimizer of one rank."""
        return OuterOptimizer(self, context)

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return blocks of three steps, or shorter ones, and a rule in which little is rounded."""
        return {"steps": min(3, steps), "rate": 0.5, "momentum": 0.5}

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield what a sync sends: `averaging.calls`."""
        return averaging.calls(setting)


class OuterOptimizer(BlockAxis):
    """The outer optimizer's state on one rank, and the messages of a synchronisation.

    The optimizer of the local steps keeps its state over a sync.

    Attributes
    ----------
    model, memory : (shard,) arrays
        W and u, once `begin` was called.
    synchronised : int
        How many blocks are over.
    """

    resets = False

    def __init__(self, options: DiLoCo, context: Context) -> None:
        self.options, self.partition = options, context.groups.partition
        self.average = averaging.Mean(context)
        self.steps, self.synchronised = options.steps, 0
        self.model = self.memory = np.empty(0, context.dtype)

    def begin(self, weights: np.ndarray) -> None:
        """Take the initial model (shard,), the same on all ranks with this shard, as W."""
        self.model, self.memory = weights.copy(), np.zeros_like(weights)

    def sync(self, weights: np.ndarray, closing: bool = False) -> None:
        """End the block: set ``weights`` (shard,) to W, the same on all ranks.

        Collective over all ranks with this shard.  Order of summation and cost: those of `Mean`.
        """
        assert self.model.shape == weights.shape, "begin() is called before the first block"
        self.average(weights)
        rate, momentum = self.options.rate, self.options.momentum
        for first in range(0, weights.size, STRIP):
            part = slice(first, first + STRIP)
            self.model[part], self.memory[part] = outer_step(
                self.model[part], self.memory[part], weights[part], rate, momentum
            )
        weights[:] = self.model
        self.synchronised += 1

    def start(self) -> np.ndarray:
        """Return where the block that begins starts from (shard,): W."""
        return self.model

    def statistics(self) -> dict[str, Any]:
        """Return how many blocks are over, and the norm of u over all shards.

        Collective over the partition group; the same on all its ranks.
        """
        norm = GlobalNorm()(self.partition, self.memory)
        return {"synchronised": self.synchronised, "outer_momentum_norm": norm}

    def state(self) -> Tree:
        """Return W and u, equal on all ranks with this shard."""
        return {
            "global_model": Leaf(self.model, "shard"),
            "outer_momentum": Leaf(self.memory, "shard"),
            "synchronised": Leaf(self.synchronised),
        }

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.model = tree["global_model"].value.copy()
        self.memory = tree["outer_momentum"].value.copy()
        self.synchronised = int(tree["synchronised"].value)
