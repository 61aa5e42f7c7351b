"""Backends with bugs that others shipped: the check finds each, and names the rung to repair.

A backend here is refimpl with a bug, inside the library (``monkeypatch``) or in what one operation
gives or is given (`instead`); ``says`` is the array that the check must name first.
"""

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from test_golden import GOLDEN

from refimpl.acoustic import frontend
from refimpl.collectives import blocks as cut
from refimpl.collectives import hierarchical, ring, tree
from refimpl.compression import onebit, threshold, wire
from refimpl.golden import Reference, check, check_backend
from refimpl.optim import SGD, Adam, clip, schedule
from refimpl.parallel import blocks
from refimpl.parallel.blocks import BlockMomentum
from refimpl.parallel.gtc import ThresholdCompression
from refimpl.parallel.replica import Replica
from refimpl.parallel.sharding import ModelStates

BUNDLES = check.loaded(GOLDEN)


def first(backend, pattern="*"):
    """Return the name that the check gives first."""
    report = check_backend(backend, BUNDLES, pattern, say=lambda text: None)
    assert not report.right, "not noticed"
    return report.first.name


def only(*names):
    """Return a backend that has these operations of the reference."""
    return type("Some", (), {name: staticmethod(getattr(Reference, name)) for name in names})()


def instead(name, change):
    """Return a backend with one operation: change(right, inputs, settings) -> its outputs."""
    right = getattr(Reference, name)
    return type("Broken", (), {name: lambda self, i, s: change(right, i, s)})()


def after(name, change):
    """Return a backend with one operation, whose outputs are changed: change(outputs, inputs)."""

    def changed(right, inputs, settings):
        kept = {key: value.copy() for key, value in inputs.items()}
        outputs = right(inputs, settings)
        change(outputs, kept)
        return outputs

    return instead(name, changed)


def settings(name, **other):
    """Return a backend with one operation that takes other settings than it is given."""
    return instead(name, lambda right, i, s: right(i, s | other))


# --------------------------------------------------------------------------------- collectives

COLLECTIVES = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce")


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        # Everybody starts with the left neighbour's block, which nobody has yet.
        (ring, "gathered", lambda p, r, s: (r - s - 1) % p, "collectives.ring/allgather.n2"),
        # Everybody ends with the sum of the neighbour's block.
        (ring, "reduced", lambda p, r, s: (r - s) % p, "collectives.ring/reduce-scatter.n2"),
        # The surplus goes to the last ranks.
        (
            cut,
            "offsets",
            lambda n, p: np.arange(p + 1) * n // p,
            "collectives.ring/allgather.n2.uneven",
        ),
        # The root is always 0.
        (
            tree,
            "parent",
            lambda v: max(0, v - 1),
            "collectives.tree/",
        ),
        # After the gather between nodes, blocks lie as they came: in order of local index.
        (
            hierarchical,
            "column",
            lambda place, local: [row[-1 - local] for row in place],
            "collectives.hierarchical/",
        ),
    ],
    ids=["gather-starts-late", "scatter-ends-late", "long-blocks-last", "chain", "local-index"],
)
def test_indices_of_collectives(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only(*COLLECTIVES), "collectives.*").startswith(says)


def every(x, rank_count):
    return np.stack([x] * rank_count)


@pytest.mark.parametrize(
    "backend, says",
    [
        (
            after("allreduce", lambda o, i: o["result"].__itruediv__(np.float32(len(i["x"])))),
            "collectives.ring/allreduce.n2.tiny/result",
        ),
        (
            instead("allreduce", lambda r, i, s: {"result": every(i["x"].sum(0), len(i["x"]))}),
            "collectives.ring/allreduce.n3.order/result",
        ),
        (
            instead("reduce", lambda r, i, s: {"result": i["x"].sum(0) + i["x"][s["root"]]}),
            "collectives.tree/reduce.n1.tiny/result",
        ),
        (
            settings("broadcast", root=0),
            "collectives.tree/broadcast.n2.tiny/",
        ),
        (
            after("reduce_scatter", lambda o, i: o.update(result=np.roll(o["result"], 1, 0))),
            "collectives.ring/reduce-scatter.n2.tiny/result",
        ),
        (
            after("allgather", lambda o, i: o["result"][:, -1:].fill(0)),
            "collectives.ring/allgather.n1.tiny/result",
        ),
    ],
    ids=["mean", "library's-order", "root-twice", "root-0", "neighbour's-block", "last-dropped"],
)
def test_results_of_collectives(backend, says):
    assert first(backend).startswith(says)


def test_shards_in_the_wrong_order_after_a_hierarchical_gather(monkeypatch):
    """Gathered between nodes and then inside, blocks lie by local index unless re-ordered."""

    def unordered(right, inputs, s):
        found = right(inputs, s)
        if s["algorithm"] == "hierarchical":
            place = hierarchical.grid(tuple(s["nodes"]))
            block = cut.slices(found["result"][0], len(s["nodes"]))
            by_local = [members[j] for j in range(len(place[0])) for members in place]
            for row in found["result"]:
                row[:] = np.concatenate([row[block[owner]] for owner in by_local])
        return found

    says = "collectives.hierarchical/allgather.2x2.tiny/result"
    assert first(instead("allgather", unordered)) == says


# --------------------------------------------------------------------------------- compression

GTC = tuple(name for name in vars(Reference) if name.startswith("gtc"))


def encode(send, keep):
    """Return an encoder: ``send(total, tau)`` where, ``keep(total, sent)`` afterwards."""

    def bug(residual, gradient, tau, words):
        total = residual + gradient
        index = np.flatnonzero(send(total, tau))
        plus = total[index] > 0
        residual[:] = keep(total, index, np.where(plus, tau, -tau), gradient)
        words[: index.size] = index << 1 | plus
        return words[: index.size]

    return bug


def less_sent(total, index, sent, gradient):
    rest = total.copy()
    rest[index] -= sent.astype(rest.dtype)
    return rest


def zeroed(total, index, sent, gradient):
    rest = total.copy()
    rest[index] = 0
    return rest


def forgotten(total, index, sent, gradient):
    return np.zeros_like(total)


def sent_alone(total, index, sent, gradient):
    """Error feedback is only of the gradient, and not of what was owed before."""
    rest = gradient.copy()
    rest[index] -= sent.astype(rest.dtype)
    return rest


def beyond(total, tau):
    return np.abs(total) > tau


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (
            threshold,
            "encode",
            encode(lambda total, tau: np.abs(total) >= tau, less_sent),
            "compression.gtc/encode.tiny/entries",
        ),
        (threshold, "encode", encode(beyond, zeroed), "compression.gtc/encode.tiny/words"),
        (threshold, "encode", encode(beyond, forgotten), "compression.gtc/encode.tiny/words"),
        (threshold, "encode", encode(beyond, sent_alone), "compression.gtc/encode.tiny/words"),
        (
            threshold,
            "signs",
            lambda words: (1 - 2 * (words & 1)).astype(np.int8),
            "compression.gtc/decode.index.one/values",
        ),
        (
            threshold,
            "adapted",
            lambda tau, entries, n, target, dtype, right=threshold.adapted: right(
                tau, 2 * target * n - entries, n, target, dtype
            ),
            "compression.gtc/adapt/tau",
        ),
        (wire, "_WORD", np.dtype(">u4"), "compression.gtc/message.index.one/message"),
        (
            wire,
            "rice_parameter",
            lambda m, n, right=wire.rice_parameter: right(m, n) + 1,
            "compression.gtc/message.rice.empty/message",
        ),
        (wire, "_MAGIC", b"GTC2", "compression.gtc/message.index.empty/message"),
        (
            wire,
            "_gaps",
            lambda index: np.diff(index, prepend=np.uint32(0)),
            "compression.gtc/message.rice.all/message",
        ),
    ],
    ids=[
        "tau-itself-is-sent",
        "residual-zeroed-where-sent",
        "no-residual",
        "residual-not-carried",
        "sign-bit-turned",
        "tau-steered-away",
        "big-endian",
        "rice-parameter-off-by-one",
        "other-magic",
        "gaps-one-too-long",
    ],
)
def test_threshold_compression(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only(*GTC)) == says


def test_two_bit_codes_in_the_other_bit_order(monkeypatch):
    right = np.packbits
    monkeypatch.setattr(np, "packbits", lambda bits, **_: right(bits, bitorder="little"))
    assert first(only("gtc_message")) == "compression.gtc/message.two-bit.one/message"


def own_gradient(outputs, inputs):
    """Every rank adds its gradient, and not its own message, to the others' messages."""
    tau = 1.0
    before = inputs["gradient"].cumsum(0) - outputs["residual"]
    sent = np.diff(before, axis=0, prepend=0)
    outputs["total"] += (inputs["gradient"] - sent) * np.float32(tau)


def without_own(outputs, inputs):
    sent = np.diff(inputs["gradient"].cumsum(0) - outputs["residual"], axis=0, prepend=0)
    outputs["total"] -= sent


@pytest.mark.parametrize(
    "change, says",
    [
        (without_own, "exchange.tiny.n2/total"),
        (own_gradient, "exchange.tiny.n2/total"),
        (lambda o, i: o["total"].__itruediv__(np.float32(2)), "exchange.tiny.n2/total"),
        (lambda o, i: o["total"].__imul__(np.float32(-1)), "exchange.tiny.n2/total"),
    ],
    ids=["own-message-missing", "own-gradient-added", "mean", "sign"],
)
def test_the_exchange(change, says):
    assert first(after("gtc_exchange", change)) == "compression.gtc/" + says


def test_minus_zero_where_nothing_was_sent():
    """As tau * sign(total) * (|total| > tau) gives it."""

    def minus(outputs, inputs):
        values = outputs["values"]
        values[values == 0] = -0.0

    says = "compression.gtc/decode.index.empty/values"
    assert first(after("gtc_decode", minus)) == says


def no_owner_feedback(comm, gradient, residual, owned, right=onebit.allreduce):
    right(comm, gradient, residual, owned)
    owned.fill(0)


@pytest.mark.parametrize(
    "name, bug, says",
    [
        ("scale_of", lambda x: float(np.abs(x).max()), "encode.tiny/message"),
        ("scale_of", lambda x: float(np.sqrt(np.mean(x**2))), "encode.tiny/message"),
        ("allreduce", no_owner_feedback, "allreduce.n2/owned"),
    ],
    ids=["largest", "root-mean-square", "no-feedback-at-the-owner"],
)
def test_one_bit(monkeypatch, name, bug, says):
    monkeypatch.setattr(onebit, name, bug)
    backend = only("onebit_encode", "onebit_allreduce")
    assert first(backend) == "compression.onebit/" + says


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


# -------------------------------------------------------------------------------------- layers


def loss_without_maximum(right, inputs, s):
    with np.errstate(all="ignore"):
        e = np.exp(inputs["logits"])
        p = e / e.sum(1, keepdims=True)
        rows = np.arange(len(p))
        loss = -np.log(p[rows, inputs["labels"]]).sum()
    p[rows, inputs["labels"]] -= 1
    return {"loss": np.float32(loss), "dlogits": p}


def times(name, factor):
    def change(outputs, inputs):
        outputs[name] = np.asarray(outputs[name] * np.float32(factor))

    return change


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
            clip,
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


# ------------------------------------------------------------------------------------ training


def double_count(self, batches):
    """The running total is all-reduced in every micro-step: earlier ones count again."""
    for microstep in range(self.options.microsteps):
        if microstep > 0:
            self.collectives.allreduce(self.groups.gradient, self.states.gradient)
        self._microstep(microstep, *batches(microstep))
    self.states.finish()
    return self._combined(self.states.gradient)


def overwritten(self, layer, microstep, right=ModelStates.reduce):
    right(self, layer, 0)


def pieces_backwards(self, number, right=ModelStates._gather):
    right(self, number)
    unit, seat = self.layout.units[number], self.seats[number]
    seat[:] = seat.reshape(-1, max(1, unit.piece))[::-1].reshape(-1) if unit.piece else seat


def ends_no_block(self, lr, right=Replica.end_block):
    """The last, partial block is dropped: its models are never averaged."""
    if self.steps - self.block_start == self.blocks.options.steps:
        right(self, lr)


def ahead(self):
    """Evaluate the look-ahead from which training would go on."""
    return nullcontext()


def compresses_without_residual(self, gradient, right=ThresholdCompression.combine):
    right(self, gradient)
    self.residual.fill(0)


def representatives_only(self, weights, right=BlockMomentum.sync):
    """Only representatives take the filtered model; the others go on with their own."""
    kept = weights.copy()
    done = right(self, weights)
    if done and self.group.rank > 0:
        weights[:] = kept
    return done


@pytest.mark.parametrize(
    "owner, name, bug, pattern, says",
    [
        (Replica, "_two_hop", double_count, "one-step.mics", "n4/gradient"),
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
            "combine",
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
