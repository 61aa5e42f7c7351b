"""The block filter and training with bugs that others shipped: the check names each.

``says`` is the array to look at, which the check must name first.  `broken` makes the backends.
"""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from broken import first, instead, only, settings

from refimpl.methods.block import bmuf as blocks
from refimpl.methods.block.bmuf import BlockMomentum
from refimpl.methods.gradient.gtc.method import ThresholdCompression
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.step import Replica
from refimpl.optim import SGD

# -------------------------------------------------------------------------------------- blocks


def filtered(model, update, mean, eta, zeta=1.0, nesterov=True, bug=""):
    """Return W, D and the next start, with a bug."""
    start = blocks.start_of(model, update, eta, nesterov)
    g = mean - (model if bug == "G from W" else start)
    if bug == "zeta on all":
        update = zeta * (eta * update + g)
    elif bug == "no momentum":
        update = zeta * g
    else:
        update = eta * update + zeta * g
    model = model + update
    if bug == "wrong sign":
        start = model - eta * update if nesterov else model
    elif bug == "classical":
        start = model
    else:
        start = blocks.start_of(model, update, eta, nesterov)
    return blocks.Filtered(start if bug == "look-ahead saved" else model, update, start)


@pytest.mark.parametrize(
    "bug, says",
    [
        ("wrong sign", "nbm.tiny/start"),
        ("classical", "nbm.tiny/start"),
        ("look-ahead saved", "nbm.tiny/model"),
        ("G from W", "nbm.tiny/model"),
        ("zeta on all", "cbm.zeta/model"),
        ("no momentum", "cbm.tiny/model"),
    ],
)
def test_the_block_filter(monkeypatch, bug, says):
    monkeypatch.setattr(blocks, "block_update", partial(filtered, bug=bug))
    assert first(only("bmuf")) == "blocks.bmuf/" + says


def test_the_sum_of_models_instead_of_their_mean():
    def summed(right, inputs, s):
        inputs["found"] *= np.float32(s["models"])
        return right(inputs, s)

    assert first(instead("bmuf", summed)) == "blocks.bmuf/cbm.tiny/model"


# ------------------------------------------------------------------------------------ training


def double_count(self, x, labels, microstep, first, right=Replica._forward_backward):
    """The running total is all-reduced in every micro-step: earlier ones count again."""
    if not first:
        self.gradient._allreduce(self.partition.gradient)
    return right(self, x, labels, microstep, first)


def overwritten(self, layer, first, right=ModelStates.reduce):
    right(self, layer, True)


def pieces_backwards(self, number, right=ModelStates._gather):
    right(self, number)
    unit, seat = self.layout.units[number], self.seats[number]
    seat[:] = seat.reshape(-1, max(1, unit.piece))[::-1].reshape(-1) if unit.piece else seat


def ends_no_block(self, lr, right=Replica.end_block):
    """The last, partial block is dropped: its models are never averaged."""
    if self.block and self.steps - self.block_start == self.block.steps:
        right(self, lr)
    self.block_start = self.steps


def ahead(self):
    """Evaluate the look-ahead from which training would go on."""
    return nullcontext()


def compresses_without_residual(self, gradient, right=ThresholdCompression.compress):
    right(self, gradient)
    self.residual.fill(0)


def representatives_only(self, weights, closing=False, right=BlockMomentum.sync):
    """Only representatives take the filtered model; the others go on with their own."""
    kept = weights.copy()
    right(self, weights)
    if self.average.group.rank > 0:
        weights[:] = kept


@pytest.mark.parametrize(
    "owner, name, bug, pattern, says",
    [
        (Replica, "_forward_backward", double_count, "one-step.mics", "n4/gradient"),
        (ModelStates, "reduce", overwritten, "one-step.ddp", "n1/gradient"),
        (
            Replica,
            "frames",
            property(lambda s: s.options.microsteps),
            "one-step.ddp",
            "n2/momentum",
        ),
        (ModelStates, "publish", lambda self: None, "one-step.zero1", "n2/model"),
        (ModelStates, "_gather", pieces_backwards, "one-step.zero3", "n2/gradient"),
        (
            blocks,
            "block_update",
            partial(filtered, bug="wrong sign"),
            "one-step.bmuf",
            "n2/parameters",
        ),
        (
            blocks,
            "block_update",
            partial(filtered, bug="look-ahead saved"),
            "one-step.bmuf",
            "n2/global_model",
        ),
        (Replica, "evaluated", ahead, "one-step.bmuf", "n2/model"),
        (SGD, "reset", lambda self, states: None, "one-step.bmuf", "n2/momentum"),
        (Replica, "end_block", ends_no_block, "ten-steps.bmuf", "n2/model"),
        (
            ThresholdCompression,
            "compress",
            compresses_without_residual,
            "one-step.gtc",
            "n1/residual",
        ),
        (BlockMomentum, "sync", representatives_only, "one-step.gtc-bmuf", "n4/parameters"),
    ],
)
def test_training(monkeypatch, owner, name, bug, pattern, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only("train"), pattern) == f"{pattern}/{says}"


@pytest.mark.parametrize(
    "change, pattern, says",
    [
        ({"microsteps": 1}, "one-step.ddp", "n1/gradient"),
        ({"lr": 0.5}, "one-step.ddp", "n1/parameters"),
        ({"hyper": {"momentum": 0.0}}, "ten-steps.ddp", "n1/"),
    ],
    ids=["first-micro-step-only", "other-rate", "no-momentum"],
)
def test_training_with_other_settings(change, pattern, says):
    assert first(settings("train", **change), pattern).startswith(f"{pattern}/{says}")


def test_every_rank_takes_the_next_ranks_micro_batches():
    """The sum is the same: only who computes what shows it, and BMUF's models."""

    def rolled(right, inputs, s):
        return right(inputs | {"micro_batch": np.roll(inputs["micro_batch"], 1, 0)}, s)

    backend = instead("train", rolled)
    assert first(backend, "one-step.ddp") == "one-step.ddp/n2/gradient"
