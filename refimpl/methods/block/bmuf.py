"""The block axis: blockwise model-update filtering (BMUF), models instead of gradients.

Every group trains alone for a block of steps, all from the same start.  Then the models are
averaged, and the step from the old global model to the average is filtered with a momentum of its
own, over blocks.  With W the global model and D its last update:

    G = mean of the groups' models - start
    D = eta D + zeta G                       eta: block momentum, zeta: block learning rate
    W = W + D
    start = W              CBM: the next block starts from the global model
    start = W + eta D      NBM: it starts ahead, from where the momentum is about to carry it

W is what is evaluated and saved, never the start.  The weights of one G in all later updates sum
up to zeta / (1 - eta); with the rule eta = 1 - 1/b, zeta = 1 that is b: the mean over b groups,
turned back into the sum of what all of them found.

The mean, over models or over the frames behind them, is on every rank
(`refimpl.methods.block.averaging`), and every rank filters for itself,
equal numbers in and equal bits out; so every rank has W and D and any of them can evaluate, save,
or speak for its group.

The filter looks at one value at a time: shards take the same steps as the whole, to the bit.

References: K. Chen and Q. Huo, "Scalable training of deep learning machines by incremental block
training with intra-block parallel optimization and blockwise model-update filtering", ICASSP 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.block import averaging
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.options import POSITIVE, Check, option
from refimpl.methods.protocol import BlockAxis, BlockMethod, Context
from refimpl.optim import Optimizer
from refimpl.state.tree import Leaf, Tree
from refimpl.support.text import table

# Values per pass: the model, W, D and the temporaries of `block_update` stay in the cache.
STRIP = 1 << 15


class Filtered(NamedTuple):
    """The global model W, its last update D, and the start of the next block."""

    model: np.ndarray
    update: np.ndarray
    start: np.ndarray


def start_of(model: np.ndarray, update: np.ndarray, eta: float, nesterov: bool) -> np.ndarray:
    """Return where the next block starts: W for CBM, W + eta D for NBM."""
    return model + eta * update if nesterov else model


def block_update(
    model: np.ndarray,
    update: np.ndarray,
    mean: np.ndarray,
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


def explain() -> str:
    """Return five blocks of NBM on one value, in each of which training finds +1."""
    model = update = start = np.zeros(1)
    rows = []
    for block in range(1, 6):
        mean = start + 1
        then = block_update(model, update, mean, eta=0.5)
        cells = start, mean, mean - start, then.update, then.model, then.start
        rows.append([str(block), *(f"{float(cell[0]):g}" for cell in cells)])
        model, update, start = then
    told = "five blocks of BMUF (NBM), of one value: eta = 0.5, zeta = 1, training finds G = 1"
    return f"{told}\n\n" + table(["block", "start", "mean", "G", "D", "W", "next start"], rows, 0)


@dataclass(frozen=True)
class Bmuf(BlockMethod):
    """Models, filtered: blockwise model-update filtering."""

    name: ClassVar[str] = "bmuf"
    title: ClassVar[str] = "blockwise model-update filtering (BMUF)"
    shown = (explain, None)

    steps: int = averaging.steps_option()
    warm: int = averaging.warm_start_option()
    eta: float | None = option(
        "--block-momentum",
        None,
        "eta (default: 1 - 1/b, b models averaged)",
        Check(lambda eta: 0 <= eta < 1, "at least 0 and less than 1 (by default 1 - 1/b)"),
    )
    zeta: float = option("--block-lr", 1.0, "zeta (default: 1)", POSITIVE)
    nesterov: bool = option(
        "--block-method",
        True,
        "nbm (Nesterov, default) or cbm (classical)",
        choices={"nbm": True, "cbm": False},
        metavar="NAME",
    )
    keep_momentum: bool | None = option(
        "--local-momentum",
        None,
        "the optimizer's state at a sync: reset, keep (default: keep Adam's, reset momentum)",
        choices={"reset": False, "keep": True},
    )
    by_frames: bool = option(
        "--block-mean",
        False,
        "a block's mean is over models (default), or over the frames that each was trained on",
        choices={"models": False, "frames": True},
        metavar="OVER",
    )

    def momentum(self, models: int) -> float:
        """Return eta for b models.

        >>> Bmuf().momentum(4), Bmuf(eta=0.5).momentum(4)
        (0.75, 0.5)
        """
        return 1 - 1 / models if self.eta is None else self.eta

    def keeps(self, optimizer: Optimizer | None) -> bool:
        """Return whether this optimizer goes on over a sync with the state that it has."""
        if self.keep_momentum is None:
            return optimizer is not None and optimizer.lasting
        return self.keep_momentum

    def build(self, context: Context) -> BlockMomentum:
        """Return the filter of one rank."""
        return BlockMomentum(self, context)

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return blocks of three steps, or shorter ones, filtered with the default momentum."""
        eta = cls().momentum(models)
        return {"steps": min(3, steps), "eta": eta, "zeta": 1.0, "nesterov": True}

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield what a sync sends: `averaging.calls`, and over frames `averaging.factor_calls`."""
        yield from averaging.factor_calls(setting) if self.by_frames else ()
        yield from averaging.calls(setting)


class BlockMomentum(BlockAxis):
    """The filter's state on one rank, and the messages of a synchronisation.

    Attributes
    ----------
    model, update : (shard,) arrays
        W and D, once `begin` was called.
    synchronised : int
        How many blocks are over.
    """

    def __init__(self, options: Bmuf, context: Context) -> None:
        self.options, self.partition = options, context.groups.partition
        self.average = averaging.Mean(context)
        self.steps, self.resets = options.steps, not options.keeps(context.optimizer)
        self.eta = options.momentum(self.average.models)
        self.synchronised = 0
        self.model = self.update = np.empty(0, context.dtype)

    def begin(self, weights: np.ndarray) -> None:
        """Take the initial model (shard,), the same on all ranks with this shard, as W."""
        self.model, self.update = weights.copy(), np.zeros_like(weights)

    def sync(self, weights: np.ndarray, closing: bool = False) -> None:
        """End the block: set ``weights`` (shard,) to the start of the next, the same on all ranks.

        Collective over all ranks with this shard.  Order of summation and cost: those of `Mean`.
        """
        assert self.model.shape == weights.shape, "begin() is called before the first block"
        factor = 1.0
        if self.options.by_frames:
            factor = averaging.factor_of(self.average.block, self.frames)
        self.average(weights, factor)
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

    def start(self) -> np.ndarray:
        """Return where the block that begins starts from (shard,), to the bit what `sync` set."""
        return start_of(self.model, self.update, self.eta, self.options.nesterov)

    def statistics(self) -> dict[str, Any]:
        """Return how many blocks are over, and the norm of D over all shards.

        Collective over the partition group; the same on all its ranks.
        """
        norm = GlobalNorm()(self.partition, self.update)
        return {"synchronised": self.synchronised, "block_update_norm": norm}

    def state(self) -> Tree:
        """Return W and D, equal on all ranks with this shard, and frames if they count."""
        frames = {"frames": Leaf(self.frames, "block")} if self.options.by_frames else {}
        return {
            "global_model": Leaf(self.model, "shard"),
            "block_update": Leaf(self.update, "shard"),
            "synchronised": Leaf(self.synchronised),
            **frames,
        }

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.model = tree["global_model"].value.copy()
        self.update = tree["block_update"].value.copy()
        self.synchronised = int(tree["synchronised"].value)
        if self.options.by_frames:
            self.frames = int(tree["frames"].value)
