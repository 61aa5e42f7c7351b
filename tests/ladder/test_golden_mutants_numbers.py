"""Layers, optimizers and acoustics with bugs that others shipped: the check names each.

``says`` is the array to look at, which the check must name first.  `broken` makes the backends.
"""

import math

import numpy as np
import pytest
from broken import after, first, instead, only, settings, times

from refimpl.numerics import norm
from refimpl.optim import Adam, clip, schedule
from refimpl.tasks.acoustic import frontend

# -------------------------------------------------------------------------------------- layers


def loss_without_maximum(right, inputs, s):
    with np.errstate(all="ignore"):
        e = np.exp(inputs["logits"])
        p = e / e.sum(1, keepdims=True)
        rows = np.arange(len(p))
        loss = -np.log(p[rows, inputs["labels"]]).sum()
    p[rows, inputs["labels"]] -= 1
    return {"loss": np.float32(loss), "dlogits": p}


@pytest.mark.parametrize(
    "backend, says",
    [
        (after("affine", lambda o, i: times("dw", 1 / len(i["x"]))(o, i)), "affine.tiny/dw"),
        (after("affine", lambda o, i: o.update(db=i["dy"][-1])), "affine.tiny/db"),
        (after("affine", lambda o, i: o.update(dx=i["dy"] @ i["w"].T * 2)), "affine.tiny/dx"),
        (
            after("affine", lambda o, i: o.update(y=i["x"] @ i["w"])),
            "affine.tiny/y",
        ),
        (after("relu", lambda o, i: o.update(dx=i["dy"] * (i["x"] >= 0))), "relu/dx"),
        (after("tanh", lambda o, i: o.update(dx=i["dy"] * (1 - i["x"] ** 2))), "tanh/dx"),
        (after("sigmoid", lambda o, i: o.update(dx=i["dy"] * o["y"])), "sigmoid/dx"),
        (
            after("softmax_cross_entropy", lambda o, i: times("loss", 1 / len(i["logits"]))(o, i)),
            "softmax-cross-entropy.rows/loss",
        ),
        (
            instead("softmax_cross_entropy", loss_without_maximum),
            "softmax-cross-entropy.far/loss",
        ),
    ],
    ids=[
        "gradient-is-a-mean",
        "bias-of-the-last-row",
        "input-gradient-twice",
        "no-bias",
        "relu-at-0",
        "tanh-of-x",
        "sigmoid",
        "loss-is-a-mean",
        "softmax-without-the-maximum",
    ],
)
def test_layers(backend, says):
    assert first(backend) == "layers/" + says


# ---------------------------------------------------------------------------------- optimizers


def adam_late(self, states, right=Adam.advance):
    right(self, states)
    states["step"] += 1


@pytest.mark.parametrize(
    "owner, name, bug, operation, says",
    [
        (Adam, "advance", adam_late, "optimizer", "optimizer.adam.rough/w_after"),
        (
            clip,
            "coefficient",
            lambda norm, most: most / norm,
            "clipping",
            "clipping.tiny-not-clipped/clipped",
        ),
        (
            norm,
            "square_sum",
            lambda g, scratch: float(np.abs(g).sum()),
            "clipping",
            "clipping.tiny/norm",
        ),
        (
            schedule.Schedule,
            "rate",
            lambda self, step, n, right=schedule.Schedule.rate: right(self, step + 1, n),
            "learning_rate",
            "learning-rate.constant.warmup/rate",
        ),
    ],
    ids=["bias-correction-one-step-late", "clipped-up", "absolute-norm", "rate-of-the-next-step"],
)
def test_optimizers(monkeypatch, owner, name, bug, operation, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only(operation)) == "optimizers/" + says


def test_epsilon_inside_the_root():
    def inside(right, inputs, s):
        w, hyper = inputs["w"].astype(float), s["hyper"]
        m, v, found = 0 * w, 0 * w, right(inputs, s)
        for step, gradient in enumerate(inputs["gradient"] * s["scale"], 1):
            m = hyper["beta1"] * m + (1 - hyper["beta1"]) * gradient
            v = hyper["beta2"] * v + (1 - hyper["beta2"]) * gradient**2
            root = np.sqrt(v / (1 - hyper["beta2"] ** step) + hyper["eps"] ** 2)
            w -= s["lr"] * m / (1 - hyper["beta1"] ** step) / root
            found["w_after"][step - 1] = w
        return found

    says = "optimizers/optimizer.adam.rough.eps/w_after"
    assert first(instead("optimizer", inside), says.rpartition("/")[0]) == says


def with_hyper(**other):
    def change(right, inputs, s):
        known = {key: value for key, value in other.items() if key in s["hyper"]}
        return right(inputs, s | {"hyper": s["hyper"] | known})

    return instead("optimizer", change)


def named(wrong):
    """Return a backend that takes one optimizer for another."""

    def change(right, inputs, s):
        return right(inputs, s | {"name": wrong.get(s["name"], s["name"])})

    return instead("optimizer", change)


def rate_in_velocity(right, inputs, s):
    """v = mu v - lr g: the same steps, another state."""
    found = right(inputs, s)
    if "momentum" in found:
        found["momentum"] *= np.float32(-s["lr"])
    return found


def scaled_after_decay(right, inputs, s):
    """The mean is taken after weight decay was added to the sum."""
    decay = s["hyper"].get("weight_decay", 0.0) * s["scale"]
    return right(inputs, s | {"hyper": s["hyper"] | {"weight_decay": decay}})


@pytest.mark.parametrize(
    "backend, says",
    [
        (named({"nesterov": "momentum"}), "optimizer.nesterov.tiny/w_after"),
        (named({"adam": "adamw"}), "optimizer.adam.rough.decay/w_after"),
        (with_hyper(weight_decay=0.0), "optimizer.sgd.decay/w_after"),
        (with_hyper(eps=1e-3), "optimizer.adam.rough/w_after"),
        (with_hyper(beta2=0.99), "optimizer.adam.rough/second"),
        (instead("optimizer", rate_in_velocity), "optimizer.momentum.tiny/momentum"),
        (instead("optimizer", scaled_after_decay), "optimizer.sgd.decay/w_after"),
        (settings("optimizer", scale=1.0), "optimizer.sgd.tiny/w_after"),
    ],
    ids=[
        "nesterov-is-plain",
        "l2-is-decoupled",
        "no-weight-decay",
        "eps",
        "beta2",
        "rate-in-velocity",
        "decay-is-averaged",
        "sum-not-mean",
    ],
)
def test_steps_of_optimizers(backend, says):
    assert first(backend) == "optimizers/" + says


def test_a_norm_for_each_shard():
    def apart(right, inputs, s):
        parts = [right({"gradient": row[None]}, s) for row in inputs["gradient"]]
        return {
            "norm": np.float32(math.sqrt(sum(float(p["norm"]) ** 2 for p in parts))),
            "clipped": np.concatenate([p["clipped"] for p in parts]),
        }

    assert first(instead("clipping", apart)) == "optimizers/clipping.tiny/clipped"


# ------------------------------------------------------------------------------------ acoustic


def hamming(length):
    return 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(length) / (length - 1))


@pytest.mark.parametrize(
    "backend, says",
    [
        (settings("log_mel", preemphasis=0.0), "log-mel.pulses/features"),
        (after("log_mel", times("features", 1 / math.log(10))), "log-mel.pulses/features"),
        (
            after("log_mel", lambda o, i: o.update(features=o["features"][:-1])),
            "log-mel.pulses/features",
        ),
        (settings("cmvn", weight=0.0), "cmvn.prior/normalised"),
        (
            instead(
                "splice",
                lambda r, i, s: r(i | {"offsets": i["offsets"][[0, -1]]}, s),
            ),
            "splice/spliced",
        ),
        (settings("decode", penalty=0.0), "decode.few/words"),
        (
            after("word_errors", lambda o, i: o.update(counts=o["counts"][[0, 2, 1, 3]])),
            "word-errors.nothing-heard/counts",
        ),
    ],
    ids=[
        "no-pre-emphasis",
        "log10",
        "last-frame-dropped",
        "no-prior",
        "spliced-across-utterances",
        "no-penalty",
        "deletions-are-insertions",
    ],
)
def test_acoustics(backend, says):
    assert first(backend).removeprefix("acoustic/") == says


def test_another_window(monkeypatch):
    monkeypatch.setattr(frontend, "povey_window", hamming)
    assert first(only("log_mel")) == "acoustic/log-mel.pulses/features"


def test_unbiased_variance(monkeypatch):
    right = frontend.moments

    def unbiased(parts):
        found = right(parts)
        n = found.frames
        return found._replace(variance=found.variance * (n / (n - 1)))

    monkeypatch.setattr(frontend, "moments", unbiased)
    assert first(only("cmvn")) == "acoustic/cmvn.speaker/normalised"
