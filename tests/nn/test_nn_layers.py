"""Layers compute what their equations say; gradients are those of central differences."""

import math

import numpy as np
import pytest

from refimpl import nn
from refimpl.nn import functional
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError

BATCHES = (1, 2, 5)
WIDTHS = ((1, 1), (1, 3), (3, 1), (7, 5), (17, 31))


def numbers(*shape, seed=0, dtype=np.float64):
    return stream(seed, "test", *shape).standard_normal(shape).astype(dtype)


def own_memory(network, dtype=np.float64, start=0):
    """Bind a network to new vectors that start `start` elements behind an allocation."""
    layout = nn.Layout(network.units)
    w = np.zeros(layout.padded + start, dtype)[start:]
    g = np.full(layout.padded + start, np.nan, dtype)[start:]
    for layer, unit in zip(network.units, layout.units, strict=True):
        layer.initialise(w[unit.place])
        layer.bind(w[unit.place], g[unit.place])
    return layout, w, g


def check_gradient(function, x, gradient, what):
    """Compare <gradient, v> with central differences of function along random directions v."""
    scale = max(1.0, np.abs(x).max(initial=0))
    for trial in range(3):
        v = numbers(*x.shape, seed=trial)
        step = 1e-6 * scale
        kept = x.copy()
        x[...] = kept + step * v
        above = function()
        x[...] = kept - step * v
        below = function()
        x[...] = kept
        numeric, analytic = (above - below) / (2 * step), float(np.sum(gradient * v))
        assert math.isclose(analytic, numeric, rel_tol=1e-6, abs_tol=1e-7), (
            f"{what}: analytic {analytic!r}, numeric {numeric!r}"
        )


@pytest.mark.parametrize("inputs, outputs", WIDTHS)
@pytest.mark.parametrize("batch", BATCHES)
def test_gradients_of_affine_are_those_of_central_differences(batch, inputs, outputs):
    layer = nn.Affine("a", inputs, outputs, seed=1)
    layer.plan(batch, inputs, np.float64)
    w, g = numbers(layer.size, seed=2), np.zeros(layer.size)
    layer.bind(w, g)
    x, weight_of_y = numbers(batch, inputs, seed=3), numbers(batch, outputs, seed=4)

    def loss():
        return float(np.sum(layer.forward(x) * weight_of_y))

    loss()
    dx = layer.backward(weight_of_y).copy()
    check_gradient(loss, x, dx, "dx")
    check_gradient(loss, w, g.copy(), "parameters")


@pytest.mark.parametrize("kind", [nn.Relu, nn.Sigmoid, nn.Tanh])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch, width", [(1, 1), (3, 7), (5, 33)])
def test_gradients_of_activations_are_those_of_central_differences(kind, in_place, batch, width):
    layer = kind()
    layer.plan(batch, width, np.float64, in_place=in_place)
    x, weight_of_y = numbers(batch, width, seed=3), numbers(batch, width, seed=4)

    def loss():
        return float(np.sum(layer.forward(x.copy()) * weight_of_y))

    loss()
    check_gradient(loss, x, layer.backward(weight_of_y).copy(), kind.__name__)


@pytest.mark.parametrize("classes", [1, 2, 9])
@pytest.mark.parametrize("batch", BATCHES)
def test_gradient_of_the_loss_is_that_of_central_differences(batch, classes):
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(batch, classes, np.float64)
    z, labels = numbers(batch, classes), np.arange(batch) % classes
    loss.forward(z, labels)
    gradient = loss.backward().copy()
    check_gradient(lambda: loss.forward(z, labels), z, gradient, "dlogits")


@pytest.mark.parametrize("batch", [1, 6])
def test_gradients_of_a_whole_network_are_those_of_central_differences(batch):
    layers = [nn.Tanh(), nn.Affine("a", 5, 9, 1), nn.Relu(), nn.Affine("b", 9, 4, 1, gain=1)]
    layers += [nn.Sigmoid(), nn.Tanh(), nn.Affine("c", 4, 3, 1)]
    network = nn.Sequential(*layers)
    network.plan(batch, np.float64)
    _, w, g = own_memory(network)
    criterion = nn.SoftmaxCrossEntropy()
    criterion.plan(batch, network.outputs, np.float64)
    x, labels = numbers(batch, 5), np.arange(batch) % 3

    def loss():
        return criterion.forward(network.forward(x), labels)

    loss()
    dx = network.backward(criterion.backward(), input_gradient=True).copy()
    check_gradient(loss, x, dx, "dx")
    check_gradient(loss, w, g.copy(), "parameters")


def test_forward_is_the_equation():
    x = np.array([[1.0, 2.0], [0.0, -1.0]])
    layer = nn.Affine("a", 2, 3, seed=1)
    layer.plan(2, 2, np.float64)
    layer.bind(np.array([1.0, 2, 3, 4, 5, 6, 0.5, 0.25, 0.125]))
    assert layer.forward(x).tolist() == [[9.5, 12.25, 15.125], [-3.5, -4.75, -5.875]]


def test_sigmoid_is_right_and_silent_far_from_zero():
    out = np.zeros(5, np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        functional.sigmoid(np.array([-1000, -20, 0, 20, 1000], np.float32), out)
    want = [0, math.exp(-20), 0.5, 1, 1]
    np.testing.assert_allclose(out, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_of_far_logits_is_finite_and_right(dtype):
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(3, 2, dtype)
    logits = np.array([[1e4, 0], [-1e4, 0], [3e38, 3e38]], dtype)
    assert loss.forward(logits, np.array([1, 0, 0])) == 2e4 + math.log(2)
    assert loss.backward().tolist() == [[1, -1], [-1, 1], [-0.5, 0.5]]


def test_loss_is_the_sum_over_rows_whatever_their_order():
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(64, 10, np.float32)
    z, labels = numbers(64, 10, dtype=np.float32) * 9, np.arange(64) % 10
    want = loss.forward(z, labels)
    for trial in range(5):
        order = stream(trial, "order").permutation(64)
        assert loss.forward(z[order], labels[order]) == want
    # 2**59 + 64 rounds to 2**59, so that 64 + 64 would be lost from left to right.
    big = nn.SoftmaxCrossEntropy()
    big.plan(3, 2, np.float64)
    far = np.array([[0, 2.0**59], [0, 64], [0, 64]])
    assert big.forward(far, np.zeros(3, np.int64)) == 2.0**59 + 128
    reference = 0.0
    for row, label in zip(z.astype(np.float64), labels, strict=True):
        reference += math.log(np.exp(row).sum()) - row[label]
    assert math.isclose(want, reference, rel_tol=1e-6)


@pytest.mark.parametrize("label", [-1, 4])
def test_label_that_is_no_class_is_refused(label):
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(2, 4, np.float32)
    with pytest.raises(UserError, match=f"label {label} is no class of a network of 4 outputs"):
        loss.forward(np.zeros((2, 4), np.float32), np.array([0, label]))


def small_network(dtype=np.float32, batch=8):
    layers = [nn.Affine("a", 13, 37, 1), nn.Relu(), nn.Affine("b", 37, 21, 1), nn.Sigmoid()]
    network = nn.Sequential(
        *layers, nn.Affine("c", 21, 11, 1), nn.Tanh(), nn.Affine("d", 11, 5, 1)
    )
    network.plan(batch, dtype)
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(batch, network.outputs, dtype)
    return network, loss


def run(network, loss, x, labels):
    logits = network.forward(x)
    value = loss.forward(logits, labels)
    network.backward(loss.backward())
    return value, logits.copy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_bits_do_not_depend_on_where_the_memory_is(dtype, batch):
    results = []
    for start in (0, 1, 2, 3, 5, 8, 15):
        network, loss = small_network(dtype)
        _, _, g = own_memory(network, dtype, start)
        x = np.zeros(batch * 13 + start, dtype)[start:].reshape(batch, 13)
        x[...] = numbers(batch, 13)
        value, logits = run(network, loss, x, np.arange(batch) % 5)
        results.append((value, logits.tobytes(), g.tobytes()))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("batch", [0, 1, 3, 8])
def test_smaller_batch_than_planned_gives_what_its_own_plan_gives(batch):
    outcomes = []
    for planned in (8, batch):
        network, loss = small_network(batch=planned)
        _, _, g = own_memory(network, np.float32)
        run(network, loss, numbers(planned, 13, dtype=np.float32), np.arange(planned) % 5)
        g.fill(np.nan)
        x = numbers(8, 13, dtype=np.float32)[:batch]
        outcomes.append((run(network, loss, x, np.arange(batch) % 5)[0], g.tobytes()))
    assert outcomes[0] == outcomes[1]
    if batch == 0:
        assert outcomes[0][0] == 0 and not g.any()


def test_binding_to_other_memory_between_the_passes_gives_the_same_bits():
    network, loss = small_network()
    layout, w, g = own_memory(network, np.float32)
    x, labels = numbers(8, 13, dtype=np.float32), np.arange(8) % 5
    want = run(network, loss, x, labels)[0], g.copy()

    # As a sharded replica does it: two buffers in turn, filled just before use.
    largest = max(unit.padded for unit in layout.units)
    buffers = [np.zeros(largest, np.float32) for _ in range(2)]
    bucket, collected = np.zeros(largest, np.float32), np.zeros_like(g)
    turn = 0

    def fetch(layer):
        nonlocal turn
        unit = layout.units[network.units.index(layer)]
        turn = 1 - turn
        buffers[turn].fill(np.nan)
        buffers[turn][: unit.size] = w[unit.place]
        layer.bind(buffers[turn][: unit.size], bucket[: unit.size])

    def reduce(layer):
        unit = layout.units[network.units.index(layer)]
        collected[unit.place] = bucket[: unit.size]

    for layer in network.layers:
        if layer.parameters:
            fetch(layer)
        x = layer.forward(x)
    value, dy = loss.forward(x, labels), loss.backward()
    for layer in reversed(network.layers):
        if layer.parameters:
            fetch(layer)
        dy = layer.backward(dy, input_gradient=layer is not network.units[0])
        if layer.parameters:
            reduce(layer)
    assert (value, collected.tobytes()) == (want[0], want[1].tobytes())


def test_nothing_below_the_first_unit_is_computed_unless_asked_for():
    below, first = nn.Relu(), nn.Affine("a", 3, 2, 1)
    network = nn.Sequential(below, first)
    network.plan(2, np.float64)
    own_memory(network)
    network.forward(numbers(2, 3))
    below._dx.fill(np.nan), first._dx.fill(np.nan)
    assert network.backward(numbers(2, 2)) is None
    assert np.isnan(below._dx).all() and np.isnan(first._dx).all()
    assert np.isfinite(network.backward(numbers(2, 2), input_gradient=True)).all()


def test_gradients_are_overwritten_and_inputs_left_alone():
    network, loss = small_network()
    _, w, g = own_memory(network, np.float32)
    x, labels = numbers(8, 13, dtype=np.float32), np.arange(8) % 5
    kept = x.copy(), w.copy()
    first = run(network, loss, x, labels), g.copy()
    second = run(network, loss, x, labels), g.copy()
    assert first[0][0] == second[0][0] and first[1].tobytes() == second[1].tobytes()
    assert x.tobytes() == kept[0].tobytes() and w.tobytes() == kept[1].tobytes()


def test_activation_works_in_place_only_above_a_layer_that_does_not_need_its_output():
    first, second, third = nn.Relu(), nn.Sigmoid(), nn.Tanh("last")
    affine = nn.Affine("a", 3, 3, 1)
    network = nn.Sequential(first, affine, second, third)
    network.plan(2, np.float64)
    own_memory(network)
    x = numbers(2, 3)
    network.forward(x)
    assert not np.shares_memory(first._y, x)
    assert second._y.base is affine._y or second._y is affine._y
    assert not np.shares_memory(third._y, second._y)


def test_sum_of_rows_is_the_sum_of_single_rows():
    network, loss = small_network(np.float64)
    _, _, g = own_memory(network)
    x, labels = numbers(8, 13), np.arange(8) % 5
    value, _ = run(network, loss, x, labels)
    whole, parts, total = g.copy(), np.zeros_like(g), 0.0
    for row in range(8):
        total += run(network, loss, x[row : row + 1], labels[row : row + 1])[0]
        parts += g
    assert math.isclose(value, total, rel_tol=1e-12)
    np.testing.assert_allclose(whole, parts, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch, outputs", [(0, 3), (1, 1), (9, 2), (64, 5), (200, 1024)])
def test_bias_gradient_is_added_row_after_row(batch, outputs, dtype):
    x, dy = numbers(batch, 1, dtype=dtype), numbers(batch, outputs, dtype=dtype)
    w, dw, db = (np.zeros(shape, dtype) for shape in ((1, outputs), (1, outputs), outputs))
    functional.affine_backward(x, w, dy, dw, db)
    want = np.zeros(outputs, dtype)
    for row in dy:
        want = want + row
    assert (db == want).all()


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="layer 'b' takes 5 inputs but 'a' before it gives 4"):
        nn.Sequential(nn.Affine("a", 3, 4, 1), nn.Relu(), nn.Affine("b", 5, 2, 1))
    with pytest.raises(UserError, match="two layers are named 'a'"):
        nn.Sequential(nn.Affine("a", 3, 4, 1), nn.Affine("a", 4, 2, 1))
    with pytest.raises(UserError, match="at least one layer with parameters"):
        nn.Sequential(nn.Relu())


def test_a_layer_of_ones_own_has_widths_and_parameters_of_different_names():
    layer = nn.Layer()
    layer.parameters = (nn.Parameter("w", (3, 2), nn.Initial("zeros")),) * 2
    for what, value in {"name": "a", "inputs": 3, "outputs": 2}.items():
        with pytest.raises(UserError, match=f"a layer of class Layer has no {what}"):
            nn.Sequential(layer)
        setattr(layer, what, value)
    with pytest.raises(UserError, match="two parameters are named 'a.w'"):
        nn.Sequential(layer)


def test_argument_that_blas_would_copy_is_refused():
    network, _ = small_network(np.float32)
    own_memory(network, np.float32)
    with pytest.raises(AssertionError):
        network.forward(numbers(2, 13))
    with pytest.raises(AssertionError):
        network.forward(numbers(13, 2, dtype=np.float32).T)


def test_backward_of_the_loss_is_given_once_per_forward():
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(1, 2, np.float32)
    loss.forward(np.zeros((1, 2), np.float32), np.array([0]))
    loss.backward()
    with pytest.raises(AssertionError):
        loss.backward()


def test_network_computes_what_torch_computes():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [oracle])")
    network, criterion = small_network(np.float64)
    layout, w, g = own_memory(network)
    x, labels = numbers(8, 13), np.arange(8) % 5
    value, _ = run(network, criterion, x, labels)

    parameters, linear = nn.named(layout, w), []
    for layer in network.units:
        module = torch.nn.Linear(layer.inputs, layer.outputs, dtype=torch.float64)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(parameters[f"{layer.name}.weight"].T.copy()))
            module.bias.copy_(torch.tensor(parameters[f"{layer.name}.bias"]))
        linear.append(module)
    a, b, c, d = linear
    modules = [a, torch.nn.ReLU(), b, torch.nn.Sigmoid(), c, torch.nn.Tanh(), d]
    logits = torch.nn.Sequential(*modules)(torch.tensor(x))
    theirs = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum")
    theirs.backward()
    assert math.isclose(value, theirs.item(), rel_tol=1e-13)
    for name, module in zip("abcd", linear, strict=True):
        ours = nn.named(layout, g)
        np.testing.assert_allclose(ours[f"{name}.weight"].T, module.weight.grad, atol=1e-13)
        np.testing.assert_allclose(ours[f"{name}.bias"], module.bias.grad, atol=1e-13)
