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
