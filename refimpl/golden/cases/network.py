"""The last two rungs again, with a real network: forward, loss, backward, optimizer, ten times.

An MLP in float64, rounded in the end: what every strategy that is exact must come to, however it
cuts the frames of a step (here 4 micro-batches) over ranks and micro-steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl import nn, optim
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule
from refimpl.golden.cases.ask import Answer, Arrays, Settings, case
from refimpl.golden.cases.truth import all_rounded, doubles

WIDTHS = [6, 5, 4, 3]
ROWS, MICRO_BATCHES = 4, 4
ACTIVATIONS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.Relu}
ONE = Rule("products, exp and tanh are rounded elsewhere in another way", ulp=32)
TEN = Rule("rounding errors of one step are carried on by the next", ulp=256)


def network(inputs: Arrays, settings: Settings) -> Arrays:
    """Train an MLP with softmax and cross-entropy.

    x (steps, micro-batches, rows, inputs), labels (steps, micro-batches, rows), and for layer i
    weight{i} (in, out) and bias{i} (out,).  settings: widths, activation (after every layer but
    the last), optimizer, hyper, lr.

    loss (steps,) is the sum over a step's frames before the update, weight_gradient{i} and
    bias_gradient{i} the first step's sums over its frames.  The optimizer is given their mean.
    weight{i}_after and bias{i}_after are the parameters in the end.
    """
    given = doubles(inputs)
    widths, dtype = settings["widths"], given["x"].dtype
    layers: list[nn.Layer] = []
    for i in range(len(widths) - 1):
        layers += [nn.Affine(f"{i}", widths[i], widths[i + 1], seed=0)]
        layers += [ACTIVATIONS[settings["activation"]]()]
    net = nn.Sequential(*layers[:-1])
    rows = given["x"].shape[2]
    net.plan(rows, dtype)
    loss = nn.SoftmaxCrossEntropy()
    loss.plan(rows, net.outputs, dtype)
    layout = nn.Layout(net.units)
    w, g, total = (np.zeros(layout.size, dtype) for _ in range(3))
    for unit, layer in zip(layout.units, net.units, strict=True):
        layer.bind(w[unit.place], g[unit.place])
        parts = [given[f"{p.name}{layer.name}"].ravel() for p in layer.parameters]
        w[unit.place] = np.concatenate(parts)
    made = optim.make(settings["optimizer"], **settings["hyper"])
    states = made.allocate(w.size, dtype)
    losses, first = [], None
    for x_step, labels_step in zip(given["x"], given["labels"], strict=True):
        losses.append(0.0)
        total.fill(0)
        for x, labels in zip(x_step, labels_step, strict=True):
            losses[-1] += loss.forward(net.forward(x), labels)
            net.backward(loss.backward())
            total += g
        first = total.copy() if first is None else first
        made.advance(states)
        made.update(w, total, states, settings["lr"], 1 / labels_step.size)
    assert first is not None
    found: dict[str, Any] = {"loss": np.array(losses)}
    for key, value in nn.named(layout, first).items():
        number, name = key.split(".")
        found[f"{name}_gradient{number}"] = value
    for key, value in nn.named(layout, w).items():
        number, name = key.split(".")
        found[f"{name}{number}_after"] = value
    return all_rounded(found)


def bundles() -> Iterator[Bundle]:
    """Yield one step, and ten."""
    for rung, steps, rule in (("one step", 1, ONE), ("ten steps", 10, TEN)):
        yield Bundle(
            f"{rung.replace(' ', '-')}.network",
            rung,
            f"{rung} of an MLP",
            tuple(_cases(steps, rule)),
        )


def _cases(steps: int, rule: Rule) -> Iterator[Case]:
    for activation, optimizer, hyper, lr in (
        ("tanh", "sgd", {}, 0.5),
        ("sigmoid", "momentum", {"momentum": 0.9, "weight_decay": 0.01}, 0.1),
        ("relu", "adam", {}, 0.01),
    ):
        label = f"network {activation} {steps}"
        x = draw.rough(f"{label} x", (steps, MICRO_BATCHES, ROWS, WIDTHS[0]))
        labels = draw.integers(f"{label} labels", 0, WIDTHS[-1], x.shape[:3])
        inputs = {
            "x": (x, "step micro_batch row input"),
            "labels": (labels, "step micro_batch row"),
        }
        answers = {"loss": Answer("step", rule)}
        for i, (wide, out) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False)):
            weight = draw.rough(f"{label} weight{i}", (wide, out), 1.0)
            inputs[f"weight{i}"] = weight, "input output"
            inputs[f"bias{i}"] = draw.rough(f"{label} bias{i}", out, 0.5), "output"
            answers[f"weight_gradient{i}"] = Answer("input output", rule)
            answers[f"bias_gradient{i}"] = Answer("output", rule)
            answers[f"weight{i}_after"] = Answer("input output", rule)
            answers[f"bias{i}_after"] = Answer("output", rule)
        yield case(
            f"{activation}.{optimizer}",
            network,
            f"{steps} steps of {optimizer}, {activation} between the layers",
            {
                "widths": WIDTHS,
                "activation": activation,
                "optimizer": optimizer,
                "hyper": optim.hyper(optimizer) | hyper,
                "lr": lr,
            },
            inputs,
            answers,
        )
