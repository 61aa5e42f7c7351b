"""A training step allocates nothing once everything is planned."""

import tracemalloc

import numpy as np
import pytest
from loopback import spawn

from refimpl import nn, optim
from refimpl.collectives.norm import GlobalNorm

# Views and Python numbers that live for a moment.
FEW = 4096

# Where operands are broadcast (a bias to all rows), a ufunc takes one iterator buffer of this many
# elements and gives it back: a constant of NumPy, whatever the network.  Every workspace, weight
# and state of the network below is larger, so that a hidden copy of one of them is seen.
BUFFER = np.getbufsize()


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_allocates_nothing(name, dtype):
    batch = 128
    layers = [nn.Affine("a", 100, 128, 1), nn.Relu(), nn.Affine("b", 128, 128, 1), nn.Sigmoid()]
    layers += [nn.Affine("c", 128, 128, 1), nn.Tanh(), nn.Affine("d", 128, 80, 1)]
    network, loss = nn.Sequential(*layers), nn.SoftmaxCrossEntropy()
    network.plan(batch, dtype)
    loss.plan(batch, network.outputs, dtype)
    layout = nn.Layout(network.units)
    w, g = np.zeros(layout.padded, dtype), np.zeros(layout.padded, dtype)
    optimizer = optim.make(name)
    states = optimizer.allocate(layout.padded, dtype)
    x = np.linspace(-1, 1, batch * 100).astype(dtype).reshape(batch, 100)
    labels = np.arange(batch) % 80
    places = [unit.place for unit in layout.units]
    for layer, place in zip(network.units, places, strict=True):
        layer.initialise(w[place])

    def step(rows):
        for layer, place in zip(network.units, places, strict=True):
            layer.bind(w[place], g[place])
        value = loss.forward(network.forward(x[:rows]), labels[:rows])
        network.backward(loss.backward())
        optimizer.advance(states)
        optimizer.update(w, g, states, lr=1e-3, scale=1 / rows)
        return value

    tracemalloc.start()
    try:
        for _ in range(2):  # the second round counts: in the first the interpreter settles
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(3):
                step(batch), step(7)
            after, peak = tracemalloc.get_traced_memory()
        probe = np.zeros(batch * 80, dtype)  # tracemalloc does see NumPy's arrays
        assert tracemalloc.get_traced_memory()[0] - after >= probe.nbytes
    finally:
        tracemalloc.stop()
    print(f"{name} {np.dtype(dtype)}: net {after - before} bytes, peak {peak - before} bytes")
    assert after - before < 512
    assert peak - before < BUFFER * np.dtype(dtype).itemsize + FEW < probe.nbytes


@pytest.mark.parametrize("exact", [False, True])
def test_norm_allocates_nothing(exact):
    g = np.ones(100_000, np.float32)
    norm = GlobalNorm(exact)
    (alone,) = spawn((0,), lambda comm: comm)
    assert norm(alone, g) == np.sqrt(100_000)
    tracemalloc.start()
    try:
        for _ in range(2):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(3):
                norm(alone, g)
            after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 512 and peak - before < FEW
