"""Solutions to the exercises of docs/diloco.md."""

import numpy as np

from refimpl import collectives, nn
from refimpl.methods.block.bmuf import block_update
from refimpl.methods.block.diloco import DiLoCo, outer_step

FOUND = (4.0, -2.0, 1.0, 8.0)  # by local training, from wherever it starts


def exercise_1():
    """W - (W - mean): the mean of the models, as in BMUF with eta = 0."""
    model, memory = np.zeros(1), np.zeros(1)
    for found in FOUND:
        mean = model + found
        model, memory = outer_step(model, memory, mean, rate=1.0, momentum=0.0)
        assert model == mean


def exercise_2():
    """DiLoCo evaluates where the next block starts; BMUF takes the look-ahead nu mu u back."""
    W, u = np.zeros(1), np.zeros(1)
    model, update, start = np.zeros(1), np.zeros(1), np.zeros(1)
    for found in FOUND:
        W, u = outer_step(W, u, W + found, rate=0.5, momentum=0.5)
        model, update, start = block_update(model, update, start + found, eta=0.5, zeta=0.5)
        assert start == W and update == -0.5 * u and model == W + 0.5 * 0.5 * u


def exercise_3():
    """A sync is about one of F fragments and sends an F-th; it is as frequent: so does a step."""
    network = nn.Sequential(*(nn.Affine(name, 4, 4, 0) for name in "abcd"))
    layout, cost = nn.Layout(network.units), collectives.get("ring").cost
    [whole] = DiLoCo(steps=50, fragments=1).parts(layout)
    parts = DiLoCo(steps=50, fragments=4).parts(layout)
    sent = [
        cost("allreduce", part.stop - part.start, (0, 1)).sent_by(0)["inter"].bytes
        for part in (whole, *parts)
    ]
    assert sent == [320, 80, 80, 80, 80]
