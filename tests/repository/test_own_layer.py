"""The layer that docs/add-your-own.md shows is a layer like those of `refimpl.nn`."""

from pathlib import Path

import numpy as np
import pytest
from loopback import spawn
from tiny import BATCH, WIDTHS, trained

from refimpl import nn, optim
from refimpl.run.modelfile import ModelFile
from refimpl.support.errors import UserError

PATH = Path(__file__).resolve().parents[2] / "docs/examples/convolution.py"
MODEL = ModelFile.parse("convolution", PATH.read_text("utf-8"), str(PATH))


def bound(network, batch):
    """Return the network with memory, and its parameters and gradients in float64."""
    network.plan(batch, np.float64)
    layout = nn.Layout(network.units)
    w, g = np.zeros(layout.size), np.full(layout.size, np.nan)
    for layer, unit in zip(network.units, layout.units, strict=True):
        layer.initialise(w[unit.place])
        layer.bind(w[unit.place], g[unit.place])
    return network, w, g


def test_gradients_are_those_of_central_differences_and_one_value_is_its_sum():
    rng = np.random.default_rng(0)
    edges = MODEL.module.Convolution("edges", (5, 6, 2), (2, 3), 3, 2, seed=1)
    network, w, g = bound(nn.Sequential(edges, nn.Tanh()), batch=4)
    w += rng.normal(size=w.size)
    x, weights = rng.normal(size=(3, 60)), rng.normal(size=(3, network.outputs))
    image, (kernel, bias) = x.reshape(3, 5, 6, 2), (w[:36].reshape(2, 3, 2, 3), w[36:])
    sums = np.tensordot(image[1, 2:4, 2:5], kernel, axes=3) + bias
    y = network.forward(x).reshape(3, 2, 2, 3)
    assert np.allclose(y[1, 1, 1], np.tanh(sums))
    dx = network.backward(weights.copy(), input_gradient=True).copy()
    assert network.forward(x[:0]).shape == (0, network.outputs)
    network.forward(x)
    for vector, gradient in ((w, g.copy()), (x, dx)):
        along = rng.normal(size=vector.shape)
        ends = []
        for step in (1e-6, -2e-6):
            vector += step * along
            ends.append(float(np.sum(network.forward(x) * weights)))
        vector += 1e-6 * along
        assert np.isclose((ends[0] - ends[1]) / 2e-6, float(np.sum(gradient * along)))


def convolving():
    """The tests' tiny network, whose first layer is a convolution."""
    edges = MODEL.module.Convolution("edges", (1, WIDTHS[0], 1), (1, 3), 2, 2, seed=1)
    last = nn.Affine("last", edges.outputs, WIDTHS[-1], 1)
    network = nn.Sequential(edges, nn.Tanh(), last)
    network.plan(BATCH, np.float32)
    return network


def test_every_way_to_cut_it_ends_in_the_same_bits():
    def digests(ranks, **how):
        told = {"network": convolving, "micro_batches": 4, "steps": 3} | how
        return {each.digest for each in spawn((0,) * ranks, lambda comm: trained(comm, **told))}

    alone = digests(1)
    assert len(alone) == 1
    assert (
        digests(4) == digests(4, partition=4, stage=3) == digests(2, partition=2, stage=2) == alone
    )


def test_it_learns_which_way_bars_lie_wherever_they_are():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = np.zeros((60, 8, 8))
    for image, label, place in zip(images, labels, rng.integers(8, size=60), strict=True):
        image[(slice(None), place) if label else (place, slice(None))] = 1
    told = {"channels": "2", "kernel": "3", "stride": "1"}
    network, w, g = bound(MODEL.build(0, 64, 2, told), batch=60)
    loss, optimizer = nn.SoftmaxCrossEntropy(), optim.make("momentum")
    loss.plan(60, 2, np.float64)
    states = optimizer.allocate(w.size, w.dtype)
    x = images.reshape(60, 64)
    for _ in range(60):
        loss.forward(network.forward(x), labels)
        network.backward(loss.backward())
        optimizer.advance(states)
        optimizer.update(w, g, states, lr=0.05, scale=1 / 60)
    assert nn.errors(network.forward(x), labels) == 0


def test_what_is_no_image_or_larger_than_it_is_refused():
    with pytest.raises(UserError, match="440 pixels are no square"):
        MODEL.build(0, 440, 10, {})
    with pytest.raises(UserError, match=r"layer 'edges': \(9, 9\) beyond \(8, 8, 1\)"):
        MODEL.build(0, 64, 10, {"kernel": "9"})
