"""Solutions to the exercises of docs/bmuf.md."""

import numpy as np

from refimpl import collectives
from refimpl.methods.block.bmuf import block_update
from refimpl.world.threads import spawn


def exercise_1():
    """D = G, so W = start + mean - start, and the next block starts there."""
    model, update, start = np.zeros(3), np.zeros(3), np.zeros(3)
    for block in range(4):
        models = start + np.arange(12).reshape(4, 3) + block  # whole numbers: nothing is rounded
        model, update, start = block_update(model, update, models.mean(axis=0), eta=0.0)
        assert np.array_equal(model, models.mean(axis=0)) and np.array_equal(start, model)


def exercise_2():
    """zeta (1 + eta + eta^2 + ...) = zeta / (1 - eta) = b, whether it looks ahead or not."""
    for nesterov in (True, False):
        model, update, start = block_update(*np.zeros((2, 1)), np.ones(1), 0.75, 1.0, nesterov)
        for _ in range(100):  # blocks that find nothing: their mean is their start
            model, update, start = block_update(model, update, start, 0.75, 1.0, nesterov)
        assert abs(model[0] - 4) < 1e-9


def exercise_3():
    """W = start + zeta G always (identity 2): the look-ahead was taken, and the mean says so."""
    model, update, start = np.zeros(1), np.zeros(1), np.zeros(1)
    for found in (4.0, 4.0, -2.0, 1.0):
        mean = start + found
        model, update, start = block_update(model, update, mean, eta=0.5)
        assert model == mean and start == mean + update / 2


def exercise_4():
    """One all-reduce of the model in H steps: twice the block, half the bytes of a step."""

    def body(comm, steps):
        w = np.full(1000, comm.rank, np.float32)
        collectives.get("ring").allreduce(comm, w)
        assert np.all(w / comm.size == 1.5)
        return comm.ledger.totals()["inter"].bytes / steps

    each = {steps: spawn((0, 1, 2, 3), lambda comm, h=steps: body(comm, h)) for steps in (25, 50)}
    assert each[25] == [2 * 3 / 4 * 4 * 1000 / 25] * 4 and each[50] == [each[25][0] / 2] * 4
