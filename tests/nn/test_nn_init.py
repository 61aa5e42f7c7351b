"""Initial values depend on names and the seed, not on what was created before."""

import math

import numpy as np
import pytest

from refimpl import nn
from refimpl.nn.init import Initial, fill


def start(layer, dtype=np.float64):
    values = np.full(layer.size, np.nan, dtype)
    layer.initialise(values)
    return values


def test_values_do_not_depend_on_the_order_of_creation_or_initialisation():
    names = ["hidden0", "hidden1", "hidden2"]
    one = {name: nn.Affine(name, 7, 7, seed=3) for name in names}
    other = {name: nn.Affine(name, 7, 7, seed=3) for name in reversed(names)}
    first = {name: start(one[name]) for name in names}
    second = {name: start(other[name]) for name in reversed(names)}
    for name in names:
        assert first[name].tobytes() == second[name].tobytes()
        assert start(one[name]).tobytes() == first[name].tobytes(), "calling again changes nothing"


def test_layers_of_one_shape_start_differently_and_so_do_seeds():
    values = [
        start(nn.Affine(name, 7, 7, seed)).tobytes() for name in ("a", "b") for seed in (1, 2)
    ]
    assert len(set(values)) == 4


def test_float32_starts_from_the_rounded_float64_values():
    layer = nn.Affine("a", 7, 5, seed=1)
    assert start(layer, np.float32).tobytes() == start(layer).astype(np.float32).tobytes()


@pytest.mark.parametrize("gain", [None, 1.0, 3.0])
def test_weights_have_the_stated_deviation_and_biases_are_zero(gain):
    inputs = 400
    layer = nn.Affine("a", inputs, 300, 1, *([] if gain is None else [gain]))
    values = start(layer)
    weights, biases = values[: inputs * 300], values[inputs * 300 :]
    want = (math.sqrt(2) if gain is None else gain) / math.sqrt(inputs)
    assert not biases.any()
    assert math.isclose(weights.std(), want, rel_tol=0.01)
    assert abs(weights.mean()) < 0.01 * want


def test_uniform_values_fill_their_interval():
    values = np.zeros(10_000)
    fill(values, Initial("uniform", 0.5), 1, "layer", "weight")
    assert -0.5 <= values.min() < -0.49 and 0.49 < values.max() < 0.5
