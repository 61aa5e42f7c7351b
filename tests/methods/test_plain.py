"""The plain form of data parallelism takes the steps of its row to the bit."""

import numpy as np
import pytest
import tiny
from loopback import spawn

from refimpl import nn, optim
from refimpl.methods import plain


def trained(comm, microsteps, optimizer, steps):
    """Train the tiny network by `plain.step`; return the model after every step."""
    network, loss = tiny.network(), nn.SoftmaxCrossEntropy()
    loss.plan(tiny.BATCH, network.outputs, np.float32)
    w, g = np.zeros((2, network.size), np.float32)
    start = 0
    for unit in network.units:
        part = slice(start, start + unit.size)
        unit.bind(w[part], g[part])
        unit.initialise(w[part])
        start += unit.size
    rule = optim.make(optimizer, weight_decay=0.01)
    states, held = rule.allocate(w.size, np.float32), []
    for number in range(steps):
        mine = [tiny.micro_batch(number, comm.rank * microsteps + m) for m in range(microsteps)]
        plain.step(comm, network, w, g, loss, rule, states, mine, lr=0.05)
        held.append(w.tobytes())
    return held, comm.ledger.total()


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("microsteps", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_replica_takes_the_plain_steps_to_the_bit_and_sends_as_much(n, microsteps, optimizer):
    def replica(comm):
        held = []
        options = {"micro_batches": n * microsteps, "steps": 4, "exact": False, "clip": None}
        watch = {"after": lambda r: held.append(r.partition.whole.tobytes())}
        tiny.trained(comm, optimizer=optimizer, **options, **watch)
        return held, comm.ledger.total()

    def plainly(comm):
        return trained(comm, microsteps, optimizer, steps=4)

    assert spawn((0,) * n, replica) == spawn((0,) * n, plainly)


def test_a_clipped_step_moves_by_the_norm_that_is_allowed_and_no_other_is_changed():
    """Plain SGD moves by lr times the mean gradient, or by lr clip along it."""

    def moved(clip):
        def body(comm):
            held = []
            tiny.trained(
                comm,
                micro_batches=2,
                steps=1,
                exact=False,
                clip=clip,
                optimizer="sgd",
                before=lambda r: held.append(r.partition.whole.copy()),
                after=lambda r: held.append(r.partition.whole.copy()),
            )
            return held[0] - held[1]

        return spawn((0,), body)[0]

    free, wide, tight = moved(None), moved(1e6), moved(0.01)
    assert np.array_equal(free, wide)
    # The decay of tiny's optimizers is the same part of all; what is left is lr clip long.
    tighter = moved(0.02) - tight
    assert np.linalg.norm(tighter) == pytest.approx(0.05 * 0.01, rel=1e-3)
    assert np.linalg.norm(free - tight) > 0.01
