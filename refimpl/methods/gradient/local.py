"""What a worker does with its own gradient before it is compressed, as DGC does it.

With g workers of a group, X the clip and M the momentum, in every compressed step::

    gradient = gradient * min(1, X / sqrt(g) / norm(gradient / frames))      local clip
    u        = M u + gradient                                                momentum correction
    u        is what is added to the residual, in the place of gradient
    u = 0    wherever something was sent

Independent gradients of g workers whose norms are X / sqrt(g) have a sum of norm X.  Momentum
after compression would act on what was sent, late; before it, on what was computed.

Reference: Y. Lin et al., "Deep gradient compression: reducing the communication bandwidth for
distributed training", ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.collectives import norm
from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.calls import Call, Setting
from refimpl.methods.options import POSITIVE, Check, option
from refimpl.methods.protocol import Context
from refimpl.optim import clip
from refimpl.state.tree import Leaf, Tree


def clip_option() -> Any:
    """Return the option of the local clip."""
    words = "clip a worker's mean gradient at X / sqrt(g) before it is compressed"
    return option("--local-clip", None, words, POSITIVE)


def momentum_option() -> Any:
    """Return the option of momentum correction."""
    words = "momentum of a worker's gradient before it is compressed (default: 0)"
    fits = Check(lambda momentum: 0 <= momentum < 1, "at least 0 and less than 1")
    return option("--momentum-correction", 0.0, words, fits)


def calls(setting: Setting) -> Iterator[Call]:
    """Yield what the norms of a local clip send: what a shard knows of its squares."""
    for group in setting.talking("partition"):
        one = norm.cost(setting.nodes.nodes_of(group), setting.exact)
        yield Call(setting, "partition", group, norm.PURPOSE, own=one)


class Local:
    """One worker's clip and momentum; does nothing without options.

    ``velocity``: u (shard,), or () without momentum.
    """

    def __init__(self, most: float | None, momentum: float, context: Context) -> None:
        groups = context.groups
        self.partition, self.frames = groups.partition, context.frames
        self.most = None if most is None else most / math.sqrt(groups.gradient.size)
        self.norm, self.momentum = GlobalNorm(exact=context.exact), momentum
        self.velocity = np.zeros(context.layout.shard if momentum else 0, context.dtype)
        self.twice = bool(momentum and context.optimizer and context.optimizer.states)

    def __call__(self, gradient: np.ndarray) -> None:
        """Replace a gradient sum (shard,) by what is to be compressed.

        Collective over the partition group if there is a clip.  A norm that is not finite clips
        nothing: whoever computed such numbers has been told (`refimpl.methods.faults`).
        """
        if self.most is not None:
            size = self.norm(self.partition, gradient) / self.frames
            if math.isfinite(size):
                gradient *= clip.coefficient(size, self.most)
        if self.momentum:
            self.velocity *= self.momentum
            self.velocity += gradient
            gradient[:] = self.velocity

    def sent(self, index: np.ndarray) -> None:
        """Forget the momentum of values of which something was sent."""
        self.velocity[index] = 0

    def warning(self) -> str | None:
        """Return that momentum acts twice, if it does."""
        if not self.twice:
            return None
        return (
            "--momentum-correction is the momentum, and the optimizer has a memory of its own, "
            "too: give --optimizer sgd unless both are meant"
        )

    def state(self) -> Tree:
        """Return u, this worker's own, if there is a momentum."""
        return {"velocity": Leaf(self.velocity, "own")} if self.momentum else {}

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        if self.momentum:
            self.velocity[:] = tree["velocity"].value
