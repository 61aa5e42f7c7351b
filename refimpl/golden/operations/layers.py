"""Layers and the loss, forward and backward."""

from __future__ import annotations

from refimpl.golden.operations.declared import Operation, given, out


def _curve(name: str, text: str, equation: str) -> Operation:
    return Operation(
        name,
        text,
        equation,
        (
            given("x", "<f4", "row element", "inputs"),
            given("dy", "<f4", "row element", "derivatives of the loss by y"),
            out("y", "<f4", "row element", "outputs"),
            out("dx", "<f4", "row element", "derivatives of the loss by x"),
        ),
    )


OPERATIONS = (
    Operation(
        "affine",
        "An affine layer and its derivatives.",
        "y = x w + b\ndw = x^T dy    db = sum of dy over rows    dx = dy w^T    sums, not means",
        (
            given("x", "<f4", "row input", "inputs"),
            given("w", "<f4", "input output", "weights"),
            given("b", "<f4", "output", "biases"),
            given("dy", "<f4", "row output", "derivatives of the loss by y"),
            out("y", "<f4", "row output", "outputs"),
            out("dw", "<f4", "input output", "derivatives of the loss by w"),
            out("db", "<f4", "output", "derivatives of the loss by b"),
            out("dx", "<f4", "row input", "derivatives of the loss by x"),
        ),
    ),
    _curve("relu", "Negative values become 0.", "y = max(x, 0)\ndx = dy where x > 0, else 0"),
    _curve("sigmoid", "The logistic curve.", "y = 1 / (1 + exp(-x))\ndx = dy y (1 - y)"),
    _curve("tanh", "The hyperbolic tangent.", "y = tanh(x)\ndx = dy (1 - y^2)"),
    Operation(
        "softmax_cross_entropy",
        "The loss of rows and its derivatives.",
        """
loss = sum over rows of -log softmax(logits)[label]        a sum, not a mean
dlogits = softmax(logits) - 1 at the label
""",
        (
            given("logits", "<f4", "row class", "outputs of the last layer"),
            given("labels", "<i8", "row", "the right class"),
            out("loss", "<f4", "", "one number"),
            out("dlogits", "<f4", "row class", "derivatives of the loss"),
        ),
    ),
)
