"""Data parallelism in its plainest form: what the row ``ddp`` means.

`refimpl.methods.step` composes this step from three axes, unit by unit.  Here it stands by itself:
every rank has the whole model and computes the gradient of its own data; the sum of all ranks'
gradients, one vector, then moves all models alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refimpl.collectives import ring
from refimpl.nn import Sequential, SoftmaxCrossEntropy
from refimpl.optim import Optimizer
from refimpl.world.communicator import Communicator


def step(
    comm: Communicator,
    network: Sequential,
    w: np.ndarray,
    g: np.ndarray,
    loss: SoftmaxCrossEntropy,
    optimizer: Optimizer,
    states: dict[str, Any],
    micro_batches: Sequence[tuple[np.ndarray, np.ndarray]],
    lr: float,
) -> None:
    """Move w (n,) by the mean gradient over the frames of all ranks.  Collective.

    The network's layers are bound to w and g (n,), end to end.  ``micro_batches`` are this
    rank's: inputs (batch, inputs) and labels (batch,) of one length each.  Takes `Replica`'s steps
    with ring collectives to the bit: it sums in the same order.
    """
    gradients = []
    for x, labels in micro_batches:
        loss.forward(network.forward(x), labels)
        network.backward(loss.backward())
        gradients.append(g.copy())
    total = gradients[0]
    for gradient in gradients[1:]:
        total += gradient
    ring.allreduce(comm, total)
    frames = comm.size * sum(len(labels) for _, labels in micro_batches)
    optimizer.advance(states)
    optimizer.update(w, total, states, lr, scale=1 / frames)
