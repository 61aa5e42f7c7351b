"""Optimizers follow their formulas, and a shard's update is that of the whole, bit by bit."""

import math

import numpy as np
import pytest

from refimpl import optim
from refimpl.numerics.rng import stream
from refimpl.optim.base import STRIP
from refimpl.support.errors import UserError

CASES = {
    "sgd": {"weight_decay": 0.01},
    "momentum": {"weight_decay": 0.01},
    "nesterov": {"momentum": 0.8, "weight_decay": 0.01},
    "adam": {"weight_decay": 0.01},
    "adamw": {"weight_decay": 0.1},
}


def numbers(n, seed, dtype=np.float64):
    return stream(seed, "test", n).standard_normal(n).astype(dtype)


def textbook(name, w, gradients, lrs, scale, hyper):
    """Take the steps with whole-array formulas, written independently of the package."""
    h = optim.hyper(name) | hyper
    decay, mu = h["weight_decay"], h.get("momentum", 0.0)
    velocity = first = second = 0.0
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        g = scale * g
        if name == "adamw":
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        if name.startswith("adam"):
            first = h["beta1"] * first + (1 - h["beta1"]) * g
            second = h["beta2"] * second + (1 - h["beta2"]) * g**2
            m_hat, v_hat = first / (1 - h["beta1"] ** t), second / (1 - h["beta2"] ** t)
            w = w - lr * m_hat / (np.sqrt(v_hat) + h["eps"])
        else:
            velocity = mu * velocity + g
            w = w - lr * (g + mu * velocity if name == "nesterov" else velocity)
    return w


def take_steps(optimizer, w, gradients, lrs, scale, cuts=()):
    """Return w after the steps, each shard between the cuts updated on its own."""
    w, bounds = w.copy(), [0, *cuts, len(w)]
    states = optimizer.allocate(len(w), w.dtype)
    for g, lr in zip(gradients, lrs, strict=True):
        optimizer.advance(states)
        for start, end in zip(bounds, bounds[1:], strict=False):
            own = {
                name: value[start:end] if isinstance(value, np.ndarray) else value
                for name, value in states.items()
            }
            optimizer.update(w[start:end], g[start:end], own, lr, scale)
    return w, states


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_steps_are_those_of_the_textbook(name, dtype, tolerance):
    w, lrs = numbers(50, 0), [0.1, 0.1, 0.05, 0.2, 0.01, 0.01]
    gradients = [8 * numbers(50, seed) for seed in range(1, 7)]
    want = textbook(name, w, gradients, lrs, 0.125, CASES[name])
    optimizer = optim.make(name, **CASES[name])
    rounded = [g.astype(dtype) for g in gradients]
    got, _ = take_steps(optimizer, w.astype(dtype), rounded, lrs, 0.125)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_cut_into_shards_gives_the_same_bits(name, dtype):
    n = 2 * STRIP + 77
    gradients = [numbers(n, seed, dtype) for seed in (1, 2, 3)]
    optimizer = optim.make(name, **CASES[name])
    want, states = take_steps(optimizer, numbers(n, 0, dtype), gradients, [0.1] * 3, 1 / 3)
    for cuts in ([1], [13, 13, 14], [STRIP - 1, STRIP + 4], list(range(0, n, 9973))):
        got, others = take_steps(
            optimizer, numbers(n, 0, dtype), gradients, [0.1] * 3, 1 / 3, cuts
        )
        assert (got == want).all(), cuts
        for state in optimizer.states:
            assert (others[state] == states[state]).all(), (state, cuts)


@pytest.mark.parametrize("name", sorted(CASES))
def test_padding_stays_zero_and_empty_shards_work(name):
    optimizer = optim.make(name, **CASES[name])
    w, _ = take_steps(optimizer, np.zeros(3), [np.zeros(3)] * 2, [0.1] * 2, 0.5)
    assert w.tolist() == [0, 0, 0]
    empty, states = take_steps(optimizer, np.zeros(0), [np.zeros(0)] * 2, [0.1] * 2, 0.5)
    assert empty.shape == (0,) and all(states[name].shape == (0,) for name in optimizer.states)


@pytest.mark.parametrize("name", sorted(CASES))
def test_numpy_scalars_as_rates_change_nothing_and_the_gradient_is_left_alone(name):
    w, g = numbers(9, 0, np.float32), numbers(9, 1, np.float32)
    kept, optimizer = g.copy(), optim.make(name, **CASES[name])
    plain, _ = take_steps(optimizer, w, [g], [0.1], 0.3)
    scalar, _ = take_steps(optimizer, w, [g], [np.float64(0.1)], np.float64(0.3))
    assert plain.tobytes() == scalar.tobytes() and g.tobytes() == kept.tobytes()


def test_float32_steps_are_made_of_float32_operations():
    w, g, f = numbers(99, 0, np.float32), numbers(99, 1, np.float32), np.float32
    got, _ = take_steps(optim.SGD(momentum=0.9), w, [g, g], [np.float64(0.1)] * 2, 1 / 3)
    v = g * f(1 / 3)
    want = w - v * f(0.1)
    v = v * f(0.9) + g * f(1 / 3)
    assert got.tobytes() == (want - v * f(0.1)).tobytes()


def test_momentum_by_hand():
    # v = 1, 1.5, 1.75; w = 1 - 0.5 (1 + 1.5 + 1.75)
    got, states = take_steps(
        optim.SGD(momentum=0.5), np.array([1.0]), [np.array([2.0])] * 3, [0.5] * 3, 0.5
    )
    assert got.tolist() == [-1.125] and states["momentum"].tolist() == [1.75]


def test_nesterov_by_hand():
    # v = 1, 1.5; g + 0.5 v = 1.5, 1.75
    nesterov = optim.SGD(momentum=0.5, nesterov=True)
    got, _ = take_steps(nesterov, np.array([1.0]), [np.array([1.0])] * 2, [0.5] * 2, 1.0)
    assert got.tolist() == [1 - 0.5 * 1.5 - 0.5 * 1.75]


def test_weight_decay_by_hand():
    # g + 0.25 w = 1 + 1; AdamW: w - 0.5 * 0.25 w before a step of the gradient's sign times lr
    got, _ = take_steps(
        optim.make("sgd", weight_decay=0.25), np.array([4.0]), [np.array([1.0])], [0.5], 1.0
    )
    assert got.tolist() == [3.0]
    adamw = optim.make("adamw", weight_decay=0.25)
    got, _ = take_steps(adamw, np.array([4.0]), [np.array([1.0])], [0.5], 1.0)
    np.testing.assert_allclose(got, [4 - 0.5 - 0.5], rtol=1e-7)


def test_first_step_of_adam_has_length_lr_whatever_the_gradient():
    g = np.array([1e-3, -1.0, 1e3])
    got, states = take_steps(optim.Adam(eps=1e-30), np.zeros(3), [g], [0.25], 1.0)
    np.testing.assert_allclose(got, [-0.25, 0.25, -0.25], rtol=1e-12)
    assert states["step"] == 1


@pytest.mark.parametrize("name", sorted(CASES))
def test_reset_starts_anew(name):
    optimizer = optim.make(name, **CASES[name])
    w, g = numbers(5, 0), numbers(5, 1)
    want, _ = take_steps(optimizer, w, [g], [0.1], 1.0)
    _, states = take_steps(optimizer, w, [g] * 3, [0.1] * 3, 1.0)
    optimizer.reset(states)
    again = w.copy()
    optimizer.advance(states)
    optimizer.update(again, g, states, 0.1)
    assert again.tobytes() == want.tobytes()


def test_update_before_the_step_is_counted_is_refused():
    adam = optim.Adam()
    with pytest.raises(AssertionError, match="advance"):
        adam.update(np.zeros(1), np.zeros(1), adam.allocate(1, np.float64), 0.1)


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("adma", {}, "no optimizer 'adma': choose one of adam, adamw, momentum, nesterov, sgd"),
        ("sgd", {"momentum": 0.9}, "optimizer sgd has no 'momentum': it has weight_decay"),
        ("momentum", {"momentum": 1.0}, "momentum 1.0: must be at least 0 and less than 1"),
        ("adam", {"beta2": -1.0}, "beta2 -1.0: must be at least 0 and less than 1"),
        ("adam", {"eps": 0.0}, "eps 0.0: must be greater than 0"),
        ("adamw", {"weight_decay": -1.0}, "weight decay -1.0: must be at least 0"),
        ("nesterov", {"momentum": 0.0}, "nesterov needs a momentum greater than 0"),
    ],
)
def test_wrong_hyper_parameters_are_refused(name, given, message):
    with pytest.raises(UserError) as error:
        optim.make(name, **given)
    assert str(error.value) == message


@pytest.mark.parametrize("name", sorted(CASES))
def test_steps_are_those_of_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [oracle])")
    w, lrs = numbers(50, 0), [0.1, 0.1, 0.05, 0.2, 0.01, 0.01]
    gradients = [numbers(50, seed) for seed in range(1, 7)]
    got, _ = take_steps(optim.make(name, **CASES[name]), w, gradients, lrs, 1.0)
    h = optim.hyper(name) | CASES[name]
    tensor = torch.tensor(w, requires_grad=True)
    if name.startswith("adam"):
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        theirs = kind([tensor], betas=(h["beta1"], h["beta2"]), eps=h["eps"])
    else:
        theirs = torch.optim.SGD(
            [tensor], lr=0.1, momentum=h.get("momentum", 0), nesterov=name == "nesterov"
        )
    for g, lr in zip(gradients, lrs, strict=True):
        theirs.param_groups[0]["lr"] = lr
        theirs.param_groups[0]["weight_decay"] = h["weight_decay"]
        tensor.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(got, tensor.detach().numpy(), rtol=1e-12)


def test_square_roots_and_products_are_correctly_rounded():
    """What "any cut gives the same bits" rests on: NumPy's kernels round as IEEE 754 says."""
    a = np.abs(numbers(1001, 5, np.float32)) + np.float32(1e-3)
    assert np.sqrt(a).tolist() == [float(np.float32(math.sqrt(float(x)))) for x in a]
    product = a.astype(np.float64) * a[::-1].astype(np.float64)  # exact: 24 + 24 < 53 bits
    assert (a * a[::-1] == product.astype(np.float32)).all()
