"""The fourth rung: layers and the loss, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl import nn
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule
from refimpl.golden.cases.ask import EXACT, Answer, Arrays, Operation, Settings, case
from refimpl.golden.cases.truth import all_rounded, doubles

ZEROS = Rule("numbers are copied or become 0, of either sign", ulp=1)
ROUNDED = Rule("matrix products add in the order of the BLAS", ulp=8)
CURVES = Rule("exp and tanh are rounded by the library that computes them", ulp=8)


def affine(inputs: Arrays, settings: Settings) -> Arrays:
    """y = x w + b: x (B, in), w (in, out), b (out,), dy (B, out) -> y, dw, db, dx.

    dw and db are sums over the B rows, not means.
    """
    given = doubles(inputs)
    x, w, b, dy = (given[name] for name in ("x", "w", "b", "dy"))
    layer = nn.Affine("layer", len(w), len(b), seed=0)
    layer.plan(len(x), len(w), x.dtype)
    values, gradients = np.concatenate([w.ravel(), b]), np.zeros(layer.size)
    layer.bind(values, gradients)
    y = layer.forward(x).copy()
    dx = layer.backward(dy)
    dw, db = gradients[: w.size].reshape(w.shape), gradients[w.size :]
    return all_rounded({"y": y, "dw": dw, "db": db, "dx": dx})


def relu(inputs: Arrays, settings: Settings) -> Arrays:
    """y = max(x, 0), and 0 is its derivative at 0: x (B, n), dy (B, n) -> y, dx."""
    return _elementwise(nn.Relu(), inputs)


def sigmoid(inputs: Arrays, settings: Settings) -> Arrays:
    """y = 1 / (1 + exp(-x)): x (B, n), dy (B, n) -> y, dx."""
    return _elementwise(nn.Sigmoid(), inputs)


def tanh(inputs: Arrays, settings: Settings) -> Arrays:
    """y = tanh(x): x (B, n), dy (B, n) -> y, dx."""
    return _elementwise(nn.Tanh(), inputs)


def _elementwise(layer: nn.Layer, inputs: Arrays) -> Arrays:
    given = doubles(inputs)
    x = given["x"]
    layer.plan(len(x), x.shape[1], x.dtype)
    y = layer.forward(x).copy()
    dx = layer.backward(given["dy"])
    assert dx is not None
    dx += 0.0  # no -0.0, which 0 times a negative number is
    return all_rounded({"y": y, "dx": dx}, sums=False)


def softmax_cross_entropy(inputs: Arrays, settings: Settings) -> Arrays:
    """Sum over rows of -log softmax(logits)[label]: logits (B, C), labels (B,) -> loss, dlogits.

    A sum, not a mean: dlogits = softmax - onehot.
    """
    given = doubles(inputs)
    logits, labels = given["logits"], given["labels"]
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(len(logits), logits.shape[1], logits.dtype)
    total = np.float64(loss.forward(logits, labels))
    return all_rounded({"loss": total, "dlogits": loss.backward()}, sums=False)


def bundles() -> Iterator[Bundle]:
    """Yield the bundle of this rung."""
    yield Bundle("layers", "layers", "Layers and the loss, forward and backward.", tuple(_cases()))


def _cases() -> Iterator[Case]:
    ones = np.ones((2, 3), np.float32)
    rows = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]], np.float32)
    yield _affine("tiny", rows, ones.T.copy(), np.array([0.5, 0.0], np.float32), ones[:, :2])
    for name, make, rule in (("exact", draw.dyadic, EXACT), ("rough", draw.rough, ROUNDED)):
        for batch, inputs, outputs in ((1, 1, 1), (5, 7, 3), (8, 4, 6)):
            label = f"affine {name} {batch} {inputs} {outputs}"
            yield _affine(
                f"{name}.{batch}x{inputs}x{outputs}",
                make(f"{label} x", (batch, inputs)),
                make(f"{label} w", (inputs, outputs)),
                make(f"{label} b", (outputs,)),
                make(f"{label} dy", (batch, outputs)),
                rule,
            )
    x = draw.dyadic("curve x", (4, 6))
    x[0, :3] = 0.0, 0.125, -0.125
    yield _curve("relu", relu, x, ZEROS)
    x = draw.rough("curve x", (4, 6), 4.0)
    x[0, :3] = 0.0, 20.0, -20.0
    yield _curve("sigmoid", sigmoid, x, CURVES)
    yield _curve("tanh", tanh, x, CURVES)
    even = np.zeros((1, 4), np.float32)
    yield _loss("tiny", even, np.array([2]))
    yield _loss("rows", draw.rough("loss", (6, 5), 3.0), np.array([0, 1, 2, 3, 4, 4]))
    yield _loss(
        "far", np.array([[1000.0, 0.0, -1000.0], [-80, 0, 20]], np.float32), np.array([1, 0])
    )


def _affine(
    name: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray, rule: Rule = EXACT
) -> Case:
    return case(
        f"affine.{name}",
        affine,
        f"y = x w + b and its derivatives, {len(x)} rows",
        {},
        {
            "x": (x, "row input"),
            "w": (w, "input output"),
            "b": (b, "output"),
            "dy": (dy, "row output"),
        },
        {
            "y": Answer("row output", rule),
            "dw": Answer("input output", rule),
            "db": Answer("output", rule),
            "dx": Answer("row input", rule),
        },
    )


def _curve(name: str, operation: Operation, x: np.ndarray, rule: Rule) -> Case:
    dy = draw.dyadic("curve dy", x.shape)
    given = {"x": (x, "row element"), "dy": (dy, "row element")}
    answers = {"y": Answer("row element", rule), "dx": Answer("row element", rule)}
    return case(name, operation, "element by element", {}, given, answers)


def _loss(name: str, logits: np.ndarray, labels: np.ndarray) -> Case:
    return case(
        f"softmax-cross-entropy.{name}",
        softmax_cross_entropy,
        "the sum over rows, and softmax less the label's one",
        {},
        {"logits": (logits, "row class"), "labels": (labels, "row")},
        {"loss": Answer("", CURVES), "dlogits": Answer("row class", CURVES)},
    )
