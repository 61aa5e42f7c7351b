"""The fifth rung: optimizers, clipping, schedules, and sums in fixed point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl import optim
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule
from refimpl.golden.cases.ask import EXACT, INTEGERS, Answer, Arrays, Settings, case
from refimpl.golden.cases.truth import all_rounded, doubles
from refimpl.numerics import norm
from refimpl.numerics.exact import FixedPoint
from refimpl.optim import clip, schedule

FUSED = Rule("operations may be fused or ordered otherwise; the differences add up", ulp=16)
ROOTS = Rule("square roots and powers are rounded by the library that computes them", ulp=4)
STATES = {"momentum": ("momentum",), "adam": ("first", "second")}


def optimizer(inputs: Arrays, settings: Settings) -> Arrays:
    """Take steps: w (n,), gradient (steps, n) -> w_after and each state (steps, n).

    settings: name, lr, scale (what the gradient is multiplied with first) and hyper, the
    optimizer's hyper-parameters.  States: momentum; or first and second.
    """
    given = doubles(inputs)
    w = given["w"]
    made = optim.make(settings["name"], **settings["hyper"])
    states = made.allocate(w.size, w.dtype)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("w_after", *made.states)}
    for gradient in given["gradient"]:
        made.advance(states)
        made.update(w, gradient, states, settings["lr"], settings["scale"])
        found["w_after"].append(w.copy())
        for name in made.states:
            found[name].append(states[name].copy())
    return all_rounded({name: np.stack(rows) for name, rows in found.items()})


def clipping(inputs: Arrays, settings: Settings) -> Arrays:
    """Clip by the global norm: gradient (shards, n), setting max_norm -> norm, clipped.

    One norm over all shards; clipped (shards, n) = gradient min(1, max_norm / norm).
    """
    gradient = doubles(inputs)["gradient"]
    scratch = np.zeros(norm.STRIP)
    length = norm.float_norm(norm.square_sum(shard, scratch) for shard in gradient)
    factor = clip.coefficient(length, settings["max_norm"])
    return all_rounded({"norm": np.float64(length), "clipped": gradient * factor})


def learning_rate(inputs: Arrays, settings: Settings) -> Arrays:
    """Say the rate of each step: settings name, lr, hyper, steps_per_epoch and steps -> rate.

    loss (epochs,), of the development set, is for newbob, which decides after each epoch:
    accepted and stopped (epochs,), 1 or 0.
    """
    made = schedule.make(settings["name"], settings["lr"], **settings["hyper"])
    rates, accepted, stopped = [], [], []
    per_epoch = settings["steps_per_epoch"]
    for step in range(settings["steps"]):
        rates.append(made.rate(step, per_epoch))
        if (step + 1) % per_epoch == 0 and "loss" in inputs:
            decision = made.decide(float(inputs["loss"][step // per_epoch]))
            accepted.append(int(decision.accept))
            stopped.append(int(decision.stop))
    found = {"rate": np.array(rates)}
    if "loss" in inputs:
        found |= {"accepted": np.array(accepted), "stopped": np.array(stopped)}
    return all_rounded(found)


def fixed_point(inputs: Arrays, settings: Settings) -> Arrays:
    """Add in 64-bit fixed point: x (terms, n), setting bits -> encoded, total and decoded."""
    x = inputs["x"]
    fixed = FixedPoint(len(x))
    encoded = np.zeros(x.shape, np.int64)
    for row, out in zip(x, encoded, strict=True):
        fixed.encode(row, out)
    total, decoded = encoded.sum(axis=0), np.zeros(x.shape[1], np.float32)
    fixed.decode(total, decoded)
    return {"encoded": encoded, "total": total, "decoded": decoded}


def bundles() -> Iterator[Bundle]:
    """Yield the bundle of this rung."""
    text = "Optimizers, clipping by the global norm, learning rates, sums in fixed point."
    yield Bundle("optimizers", "optimizers", text, tuple(_cases()))


def _cases() -> Iterator[Case]:
    half = {"momentum": 0.5}
    one = np.array([4.0], np.float32)
    for name, hyper in (("sgd", {}), ("momentum", half), ("nesterov", half)):
        yield _optimizer(
            f"{name}.tiny", name, hyper, np.ones(1, np.float32), [one] * 4, 0.125, 0.5
        )
        w = draw.dyadic(f"{name} w", 10)
        gradient = draw.dyadic(f"{name} g", (3, 10))
        yield _optimizer(f"{name}.exact", name, hyper, w, gradient, 0.25, 0.5)
        decay = {**hyper, "weight_decay": 0.25}
        yield _optimizer(f"{name}.decay", name, decay, w, gradient, 0.25, 0.5)
    for name, hyper in (
        ("momentum", {"momentum": 0.9}),
        ("nesterov", {"momentum": 0.9, "weight_decay": 0.01}),
        ("adam", {}),
        ("adam", {"weight_decay": 0.01}),
        ("adamw", {"weight_decay": 0.1}),
        ("adam", {"eps": 0.25}),
    ):
        label = f"{name}.rough" + (".decay" if "weight_decay" in hyper else "")
        label += ".eps" if "eps" in hyper else ""
        w, gradient = draw.rough(f"{label} w", 12), draw.rough(f"{label} g", (10, 12))
        yield _optimizer(label, name, hyper, w, gradient, 0.05, 0.125, FUSED)
    yield _optimizer("adam.tiny", "adam", {}, np.ones(1, np.float32), [one] * 2, 0.5, 1.0, FUSED)

    for name, most in (("tiny", 1.0), ("tiny-not-clipped", 8.0)):
        yield _clip(name, np.array([[3.0, 0.0], [0.0, 4.0]], np.float32), most)
    yield _clip("shards", draw.rough("clip", (4, 9)), 0.75)

    for name, hyper in (
        ("constant", {}),
        ("constant", {"warmup": 1.5}),
        ("step", {"every": 1.0, "decay": 0.5}),
        ("exponential", {"decay": 0.25}),
        ("exponential", {"decay": 0.7, "warmup": 1.0}),
    ):
        label = name + (".warmup" if "warmup" in hyper else "")
        yield _schedule(label, name, hyper, 3, 12, {})
    losses = np.array([4.0, 2.0, 2.5, 1.875, 1.8749])
    yield _schedule("newbob", "newbob", {}, 1, 5, {"loss": (losses, "epoch")})
    yield _schedule("newbob.rise", "newbob", {}, 1, 3, {"loss": (losses[[1, 0, 0]], "epoch")})

    x = draw.rough("fixed point", (5, 9), 1000.0)
    x[:, 0] = 1e5, 0.5, -1e5, 2.0**-41, 3 * 2.0**-41
    yield case(
        "fixed-point",
        fixed_point,
        "round(x 2^40), half to even; integers add in any order; one rounding at the end",
        {"bits": 40},
        {"x": (x, "term element")},
        {
            "encoded": Answer("term element", INTEGERS),
            "total": Answer("element", INTEGERS),
            "decoded": Answer("element", Rule("one rounding of an integer over 2^40")),
        },
    )


def _optimizer(
    label: str,
    name: str,
    hyper: dict[str, float],
    w: np.ndarray,
    gradient: Any,
    lr: float,
    scale: float,
    rule: Rule = EXACT,
) -> Case:
    gradient = np.stack(list(gradient))
    names = ["w_after", *optim.make(name, **hyper).states]
    return case(
        f"optimizer.{label}",
        optimizer,
        f"{len(gradient)} steps of {name}",
        {"name": name, "lr": lr, "scale": scale, "hyper": optim.hyper(name) | hyper},
        {"w": (w, "element"), "gradient": (gradient, "step element")},
        {key: Answer("step element", rule) for key in names},
    )


def _clip(label: str, gradient: np.ndarray, most: float) -> Case:
    return case(
        f"clipping.{label}",
        clipping,
        "one norm over all shards",
        {"max_norm": most},
        {"gradient": (gradient, "shard element")},
        {"norm": Answer("", ROOTS), "clipped": Answer("shard element", ROOTS)},
    )


def _schedule(
    label: str, name: str, hyper: dict[str, float], per_epoch: int, steps: int, inputs: dict
) -> Case:
    answers = {"rate": Answer("step", ROOTS)}
    if inputs:
        answers |= {key: Answer("epoch", INTEGERS) for key in ("accepted", "stopped")}
    settings = {"name": name, "lr": 0.5, "hyper": schedule.hyper(name) | hyper}
    settings |= {"steps_per_epoch": per_epoch, "steps": steps}
    text = f"the learning rate of {steps} steps, {name}"
    return case(f"learning-rate.{label}", learning_rate, text, settings, inputs, answers)
