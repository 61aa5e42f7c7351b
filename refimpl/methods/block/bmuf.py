"""The block axis: blockwise model-update filtering (BMUF), models instead of gradients.

Every group trains alone for a block of steps, all from the same start.  Then the models are
averaged, and the step from the old global model to the average is filtered with a momentum of its
own, over blocks.  With s the start of the block, W the global model and D its last update:

    G = mean of the groups' models - s
    D = eta D + zeta G                       eta: block momentum, zeta: block learning rate
    W = W + D
    s = W              CBM: the next block starts from the global model
    s = W + eta D      NBM: it starts ahead, from where the momentum is about to carry it

W is what is evaluated and saved, never s.  The weights of one G in all later updates sum up to
zeta / (1 - eta); with the rule eta = 1 - 1/b, zeta = 1 that is b: the mean over b groups, turned
back into the sum of what all of them found.

Only representatives talk between groups: they sum up their models and broadcast the *mean* inside
their groups.  Every rank then filters for itself, equal numbers in and equal bits out, so every
rank has W and D and any of them can evaluate, save, or speak for its group.

The filter looks at one value at a time: shards take the same steps as the whole, to the bit.

References: K. Chen and Q. Huo, "Scalable training of deep learning machines by incremental block
training with intra-block parallel optimization and blockwise model-update filtering", ICASSP 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.methods import dense
from refimpl.optim import clip
from refimpl.support.errors import require

if TYPE_CHECKING:
    from refimpl.collectives import Collectives
    from refimpl.numerics.exact import FixedPoint
    from refimpl.world.communicator import Communicator

# Values per pass: the model, W, D and the temporaries of `block_update` stay in the cache.
STRIP = 1 << 15


class Filtered(NamedTuple):
    """The global model W, its last update D, and the start of the next block."""

    model: NDArray
    update: NDArray
    start: NDArray


def start_of(model: NDArray, update: NDArray, eta: float, nesterov: bool) -> NDArray:
    """Return where the next block starts: W for CBM, W + eta D for NBM."""
    return model + eta * update if nesterov else model


def block_update(
    model: NDArray,
    update: NDArray,
    mean: NDArray,
    eta: float,
    zeta: float = 1.0,
    nesterov: bool = True,
) -> Filtered:
    """Return W, D and the next start after one block.

    Parameters
    ----------
    model, update : (n,) arrays
        W and D before.
    mean : (n,) array of the same dtype
        The mean of the models that started from ``start_of(model, update, eta, nesterov)``.
    eta, zeta : float
        Block momentum and block learning rate.
    nesterov : bool
        NBM, else CBM.

    Examples
    --------
    Two blocks of local training that find +1 each time, as seen from their starts:

    >>> w, d, s = np.zeros(1), np.zeros(1), np.zeros(1)
    >>> for _ in range(2):
    ...     w, d, s = block_update(w, d, s + 1, eta=0.5)
    ...     print(w, d, s)
    [1.] [1.] [1.5]
    [2.5] [1.5] [3.25]
    """
    g = mean - start_of(model, update, eta, nesterov)
    update = eta * update + zeta * g
    model = model + update
    return Filtered(model, update, start_of(model, update, eta, nesterov))


@dataclass(frozen=True)
class BlockOptions:
    """How models are filtered.

    Attributes
    ----------
    steps : int
        Local steps of a block.
    eta : float, optional
        Block momentum, in [0, 1); by default 1 - 1/b, b the number of models averaged.
    zeta : float
        Block learning rate.
    nesterov : bool
        NBM (the default), else CBM.
    """

    steps: int = 50
    eta: float | None = None
    zeta: float = 1.0
    nesterov: bool = True

    def check(self) -> None:
        """Refuse what cannot be meant."""
        require(self.steps >= 1, f"blocks of {self.steps} steps: must be at least 1")
        require(
            self.eta is None or 0 <= self.eta < 1,
            f"block momentum {self.eta}: must be at least 0 and less than 1 (by default 1 - 1/b)",
        )
        require(
            0 < self.zeta < math.inf,
            f"block learning rate {self.zeta}: must be a positive number (usually 1)",
        )

    def momentum(self, blocks: int) -> float:
        """Return eta for b models.

        >>> BlockOptions().momentum(4), BlockOptions(eta=0.5).momentum(4)
        (0.75, 0.5)
        """
        return 1 - 1 / blocks if self.eta is None else self.eta


class BlockMomentum:
    """The filter's state on one rank, and the messages of a synchronisation.

    Parameters
    ----------
    block : Communicator
        The b ranks with this shard and this place in their groups.
    group : Communicator
        The g ranks of this rank's GTC group with this shard, whose models are equal; rank 0 is
        the representative.
    collectives : Collectives
        All-reduce between representatives, broadcast inside the groups.
    options : BlockOptions
        Checked here.
    fixed : FixedPoint, optional
        For sums that do not depend on their order (``--reduction exact``), b terms.

    Attributes
    ----------
    model, update : (n,) arrays
        W and D, once `begin` was called; of length 0 with b = 1.
    synchronised : int
        How many blocks are over.
    """

    def __init__(
        self,
        block: Communicator,
        group: Communicator,
        collectives: Collectives,
        options: BlockOptions | None = None,
        fixed: FixedPoint | None = None,
    ) -> None:
        self.options = BlockOptions() if options is None else options
        self.options.check()
        self.block, self.group, self.collectives, self.fixed = block, group, collectives, fixed
        self.eta = self.options.momentum(block.size)
        self.synchronised = 0
        self.model = self.update = np.empty(0)

    @property
    def active(self) -> bool:
        """Whether there is anything to average.  With b = 1 every call here does nothing."""
        return self.block.size > 1

    def begin(self, weights: NDArray) -> None:
        """Take the initial model (n,), the same on all ranks with this shard, as W."""
        if self.active:
            self.model, self.update = weights.copy(), np.zeros_like(weights)

    def sync(self, weights: NDArray) -> bool:
        """End the block: set ``weights`` (n,) to the start of the next, the same on all ranks.

        Returns whether anything was done: with b = 1 the weights keep their bits, where the
        filter would turn w into s + (w - s).  Collective over all ranks with this shard.

        Mean: the sum over groups (order of summation: the collective's; none with ``fixed``),
        divided by b.  Cost: between representatives one all-reduce of n values, inside a group
        one broadcast of n.
        """
        if not self.active:
            return False
        assert self.model.shape == weights.shape, "begin() is called before the first block"
        with self.block.purpose("models"):
            if self.group.rank == 0:
                dense.allreduce(self.block, self.collectives, weights, self.fixed)
                weights /= self.block.size
            if self.group.size > 1:
                self.collectives.broadcast(self.group, weights)
        for first in range(0, weights.size, STRIP):
            part = slice(first, first + STRIP)
            self.model[part], self.update[part], weights[part] = block_update(
                self.model[part],
                self.update[part],
                weights[part],
                self.eta,
                self.options.zeta,
                self.options.nesterov,
            )
        self.synchronised += 1
        return True

    def evaluated(self, weights: NDArray) -> NDArray:
        """Return the model to evaluate and save: W; with b = 1 the weights themselves."""
        return self.model if self.active else weights

    def update_norm(self, partition: Communicator) -> float:
        """Return the norm of D over all shards, the same on all ranks.  Collective over them."""
        return clip.GlobalNorm()(partition, self.update)

    def state(self) -> dict[str, Any]:
        """Return all that the next block depends on, by name; arrays are not copies."""
        return {
            "global_model": self.model,
            "block_update": self.update,
            "synchronised": self.synchronised,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        self.model, self.update = state["global_model"].copy(), state["block_update"].copy()
        self.synchronised = int(state["synchronised"])
