"""Bugs that equal micro-batches, powers of two and momentum alone do not show: each is named.

``says`` is the array to look at, which the check must name first.  `broken` makes the backends.
"""

import numpy as np
import pytest
from broken import first, only

from refimpl import optim
from refimpl.collectives.norm import GlobalNorm
from refimpl.golden.cases import trained
from refimpl.methods.block import bmuf as blocks
from refimpl.methods.gradient.compressed import Compressed
from refimpl.methods.gradient.exact import AllReduce
from refimpl.methods.gradient.gtc import threshold
from refimpl.methods.gradient.gtc.method import ThresholdCompression as Gtc
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.methods.gradient.onebit.method import SignCompression
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.step import Replica
from refimpl.optim import Adam, clip
from refimpl.state import reshard
from refimpl.world.topology import Grid

NORM, UPDATE, STEP, RIGHT = GlobalNorm.__call__, Replica._update, Replica.step, Adam.update

# ------------------------------------------------------------------------ clipping, and the mean


def norm_of(group):
    """Return an update that takes the norm over another group of ranks."""

    def update(self, gradient, lr, frames=None):
        self._norm = self._norm and (lambda _, g: NORM(GlobalNorm(), group(self), g))
        UPDATE(self, gradient, lr, frames)

    return update


class OneRank:
    size, rank = 1, 0


def unscaled(self, gradient, lr, frames=None):
    """The norm is that of the sum, and not of the mean."""
    self._norm = self._norm and (lambda comm, g: NORM(GlobalNorm(), comm, g) * self.mean)
    self.mean = frames
    UPDATE(self, gradient, lr, frames)


def whole_batches(self, batches, lr, frames):
    """All micro-batches are taken to be as long as the longest."""
    return STEP(self, batches, lr, self.frames)


def whole_frames(self, batches, lr, frames):
    """A rank's share of the frames is rounded down."""
    ranks = self.groups.world.size
    return STEP(self, batches, lr, frames // ranks * ranks)


def own_mean(self, x, labels, microstep, first, right=Replica._forward_backward):
    """A mean of means: each micro-batch's gradient is divided by its own frames."""
    return right(self, x[:1], labels[:1], microstep, first)


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (Replica, "_update", norm_of(lambda r: r.groups.world), "ddp/n3.clipped/first"),
        (Replica, "_update", norm_of(lambda r: r.groups.world), "mics/n6.clipped/first"),
        (Replica, "_update", norm_of(lambda r: r.groups.world), "bmuf/n3.clipped/first"),
        (Replica, "_update", norm_of(lambda r: OneRank), "zero1/n6.clipped/first"),
        (Replica, "_update", norm_of(lambda r: OneRank), "mics-gtc-bmuf/n12.clipped/first"),
        (Replica, "_update", unscaled, "serial/n1.clipped/first"),
        (clip, "coefficient", lambda norm, most: most / norm, "zero3/n6.clipped/first"),
        (clip, "coefficient", lambda norm, most: 1.0, "topk/n3.clipped/first"),
        (Replica, "_forward_backward", own_mean, "serial/n1.clipped/combined"),
        (Replica, "step", whole_frames, "ddp/n3.unequal/parameters"),
        (Replica, "step", whole_batches, "ddp/n3.clipped/first"),
        (Replica, "step", whole_batches, "mics-bmuf/n6.clipped/first"),
    ],
)
def test_clipping_and_the_mean(monkeypatch, owner, name, bug, says):
    named(monkeypatch, owner, name, bug, says)


def named(monkeypatch, owner, name, bug, says):
    """The check names this array of ten steps first, in its case."""
    monkeypatch.setattr(owner, name, bug)
    case = says.rpartition("/")[0]
    assert first(only("train_frames"), f"ten-steps.{case}") == f"ten-steps.{says}"


# --------------------------------------------------------------------- optimizers and schedules


def inside(self, w, g, states, lr, scale=1.0):
    """The epsilon stands inside the root."""
    m, v, t = states["first"], states["second"], states["step"]
    decayed = g * scale + (0 if self.decoupled else self.weight_decay) * w
    m[:] = self.beta1 * m + (1 - self.beta1) * decayed
    v[:] = self.beta2 * v + (1 - self.beta2) * decayed**2
    w *= 1 - lr * (self.weight_decay if self.decoupled else 0)
    hat = m / (1 - self.beta1**t)
    w -= lr * hat / np.sqrt(v / (1 - self.beta2**t) + self.eps**2)


def counted_on(self, states, right=Adam.reset):
    """Adam's counter goes on over a sync, where its moments begin anew."""
    step = states["step"]
    right(self, states)
    states["step"] = step


def other(**hyper):
    """Return a maker of optimizers with other hyper-parameters."""
    right = optim.make
    return lambda name, **given: right(name, **given | hyper)


def taken_for(wrong):
    right = optim.make
    return lambda name, **given: right(wrong, **given)


def no_warmup(self, step):
    told = self.settings["schedule"]
    return self.settings["lr"] * told["hyper"]["decay"] ** (step / told["steps_per_epoch"])


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (Adam, "update", inside, "serial/n1.clipped/parameters"),
        (Adam, "update", inside, "mics-gtc/n6.clipped/parameters"),
        (Adam, "reset", counted_on, "bmuf/n3.clipped/parameters"),
        (Adam, "reset", counted_on, "mics-gtc-bmuf/n12.clipped/parameters"),
        (optim, "make", taken_for("adamw"), "zero2/n6.adam/first"),
        (optim, "make", taken_for("adamw"), "mics/n6.adam.stage2/first"),
        (optim, "make", taken_for("adam"), "mics/n6.clipped.stage1/first"),
        (optim, "make", other(weight_decay=0.0), "zero3/n6.clipped/parameters"),
        (trained.Unequal, "rate", no_warmup, "zero2/n6.adam/parameters"),
        (
            trained.Unequal,
            "rate",
            lambda self, step, right=trained.Unequal.rate: right(self, step + 1),
            "zero1/n6.adam/parameters",
        ),
    ],
)
def test_optimizers_and_schedules(monkeypatch, owner, name, bug, says):
    named(monkeypatch, owner, name, bug, says)


# ------------------------------------------------------------------------------- what methods do


def in_rank_order(self, rank, microstep, microsteps):
    """Every rank takes a run of micro-batches: right without shards only."""
    return rank * microsteps + microstep


def filtered(**other):
    right = blocks.block_update

    def bug(model, update, mean, eta, zeta=1.0, nesterov=True):
        given = {"eta": eta, "zeta": zeta, "nesterov": nesterov} | other
        return right(model, update, mean, **given)

    return bug


def options(**other):
    """Return a compression that takes other options."""

    def built(self, options, context, right=Gtc.__init__):
        right(self, type(options)(**{**vars(options), **other}), context)

    return built


def steered_densely(self, gradient, right=Gtc.sum_densely):
    """A step of the warm-up is taken for one in which nothing was sent."""
    right(self, gradient)
    if self.options.target is not None:
        dtype = self.residual.dtype
        self.tau = threshold.adapted(self.tau, 0, self.values, self.options.target, dtype)


def one_bit(**other):
    """Return one bit per value with other options."""

    def built(self, options, context, right=SignCompression.__init__):
        right(self, type(options)(**{**vars(options), **other}), context)

    return built


def own_mask(self, gradient, right=Compressed.sum_densely):
    """What a rank itself has no gradient of is masked, on this rank."""
    self.seen |= gradient != 0
    right(self, gradient)


def last_mask(self, gradient, right=Compressed.sum_densely):
    """What had no gradient in the last dense step is masked."""
    right(self, gradient)
    self.seen[:] = gradient != 0


def first_mask(self, gradient, right=Compressed.sum_densely):
    """What had no gradient in the first one is."""
    right(self, gradient)
    if self.step == 0:
        self.seen[:] = gradient != 0


def masked_result(self, gradient, right=SignCompression.compress):
    """What is masked is not applied, and owed for ever."""
    self.masked = False
    right(self, gradient)
    self.masked = True
    gradient[self.seen == 0] = 0


@pytest.mark.parametrize(
    "name, bug, says",
    [
        ("sum_densely", own_mask, "seen"),
        ("sum_densely", last_mask, "seen"),
        ("sum_densely", first_mask, "seen"),
        ("compress", masked_result, "residual"),
    ],
)
def test_the_mask_of_what_never_had_a_gradient(monkeypatch, name, bug, says):
    named(monkeypatch, SignCompression, name, bug, f"onebit/n3.mask.seen/{says}")


def double_count(self, gradient, first):
    """The running total crosses workers in every micro-step: earlier ones count again."""
    if first:
        self._total[:] = gradient
    else:
        self._total += gradient
    self._allreduce(self._total)


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (Grid, "micro_batch", in_rank_order, "zero1/n6.clipped/micro_batch"),
        (Grid, "micro_batch", in_rank_order, "mics-diloco/n6.clipped/micro_batch"),
        (blocks, "block_update", filtered(zeta=1.0), "bmuf/n3.clipped/global_model"),
        (blocks, "block_update", filtered(nesterov=True), "mics-bmuf/n6.clipped/parameters"),
        (ModelStates, "publish", lambda self: None, "mics/n6.clipped.stage1/combined"),
        (ModelStates, "publish", lambda self: None, "mics/n6.adam.stage2/combined"),
        (AllReduce, "combine_now", double_count, "mics/n6.every-microstep/combined"),
        (Gtc, "__init__", options(units="sum"), "gtc/n3.mean.rice/message"),
        (
            Gtc,
            "__init__",
            options(format="auto"),
            "gtc/n3.mean.rice/message",
        ),
        (Gtc, "__init__", options(warmup=0), "gtc/n3.warmup/message_size"),
        (Gtc, "__init__", options(clip_every=0), "gtc/n3.warmup/residual"),
        (Gtc, "__init__", options(clip_every=1), "gtc/n3.warmup/residual"),
        (Gtc, "__init__", options(clip_at=1.0), "gtc/n3.warmup.adaptive/residual"),
        (Gtc, "sum_densely", steered_densely, "gtc/n3.warmup.adaptive/tau"),
        (SignCompression, "__init__", one_bit(mask=False), "onebit/n3.mask/seen"),
        (SignCompression, "__init__", one_bit(by_columns=False), "onebit/n3.columns/message"),
        (Gtc, "__init__", options(at_sync="keep"), "gtc-bmuf/n6.zero/residual"),
        (
            Gtc,
            "__init__",
            options(at_sync="zero"),
            "gtc-bmuf/n6.fold/global_model",
        ),
        (Gtc, "_over_shards", lambda self, n: n, "mics-gtc/n6.adaptive/tau"),
        (threshold, "adapted", lambda tau, *rest: tau, "mics-gtc/n6.adaptive/tau"),
    ],
)
def test_methods(monkeypatch, owner, name, bug, says):
    named(monkeypatch, owner, name, bug, says)


def alike(comm, frames):
    """Models count alike, whatever they were trained on."""
    return 1.0


def summing_to_one(comm, frames, right=blocks.averaging.factor_of):
    """Shares of 1, which are then divided by the number of models, too."""
    return right(comm, frames) / comm.size


def never_forgotten(self, weights, closing=False, right=blocks.BlockMomentum.sync):
    """Frames of earlier blocks count on."""
    self.counted = getattr(self, "counted", 0) + self.frames
    self.frames = self.counted
    right(self, weights, closing)


def last_step(self, batches, lr, frames):
    """Only the frames of a block's last step count."""
    self.block.frames = 0
    return STEP(self, batches, lr, frames)


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (blocks.averaging, "factor_of", alike, "bmuf/n3.frames/global_model"),
        (blocks.averaging, "factor_of", summing_to_one, "gtc-bmuf/n6.frames/global_model"),
        (blocks.BlockMomentum, "sync", never_forgotten, "bmuf/n3.frames/model"),
        (Replica, "step", last_step, "gtc-bmuf/n6.frames/global_model"),
    ],
)
def test_models_that_count_by_their_frames(monkeypatch, owner, name, bug, says):
    named(monkeypatch, owner, name, bug, says)


def test_kept_momentum_that_is_not_kept(monkeypatch):
    right = blocks.BlockMomentum.__init__

    def built(self, options, context):
        right(self, options, context)
        self.resets = True

    named(monkeypatch, blocks.BlockMomentum, "__init__", built, "bmuf/n3.kept-momentum/momentum")


def test_another_scale_of_one_bit_is_seen_in_the_message(monkeypatch):
    bug = lambda x: float(np.abs(x).max(initial=0))  # noqa: E731
    named(monkeypatch, onebit, "scale_of", bug, "onebit/n3.clipped/message")


# ------------------------------------------------------------------------------ a state cut anew


def shards_kept(new, rank, old, shards):
    """Shards are joined and split as they are, and padding is not taken out of the middle."""
    joined = np.concatenate(list(shards))
    return np.resize(np.append(joined, 0), new.partition * new.shard).reshape(new.partition, -1)[
        rank
    ]


def round_robin(self):
    """Residuals of workers that are no more go to worker w mod W'."""
    old, mine = self.saved.grid, self.place
    worker = mine.block * self.grid.gradient + mine.member
    theirs = range(worker, old.workers, self.grid.workers)
    none = np.zeros(self.layout.shard, np.float32)
    return sum((self._recut(*divmod(w, old.gradient)) for w in theirs), none)


def dropped(self):
    """Only residuals of workers that there still are go on."""
    old, mine = self.saved.grid, self.place
    worker = mine.block * self.grid.gradient + mine.member
    if worker >= old.workers:
        return np.zeros(self.layout.shard, np.float32)
    return self._recut(*divmod(worker, old.gradient))


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (reshard, "recut", shards_kept, "parameters_after"),
        (reshard._Fitting, "_own", round_robin, "residual_after"),
        (reshard._Fitting, "_own", dropped, "residual_after"),
    ],
)
def test_a_state_cut_anew(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    found = first(only("cut_anew"), "ten-steps.cut-anew")
    assert found.startswith("ten-steps.cut-anew/") and found.endswith(says)
