"""The block filter: its identities, and two older methods that it is in other words."""

from contextlib import suppress

import numpy as np
import pytest
from axes import context
from families import addend
from loopback import spawn
from tiny import trained

from refimpl import collectives
from refimpl.methods.block import averaging
from refimpl.methods.block.bmuf import Bmuf, block_update, start_of
from refimpl.methods.calls import Setting
from refimpl.methods.protocol import Context
from refimpl.methods.traffic import sent
from refimpl.nn.flat import one_unit
from refimpl.numerics.rng import stream
from refimpl.state import tree
from refimpl.support.errors import UserError
from refimpl.world.groups import Groups
from refimpl.world.ledger import summed
from refimpl.world.topology import Grid, Nodes


def blocks(eta, zeta, nesterov, count=12, n=50, groups=4, dtype=np.float64, found=None):
    """Yield (mean, Filtered) block by block; each group finds a random way from the start."""
    start = stream(0, "start").normal(size=n).astype(dtype)
    model, update, begin = start, np.zeros(n, dtype), start
    for block in range(count):
        ways = stream(0, "found", block).normal(size=(groups, n)).astype(dtype)
        mean = (begin + ways).mean(0)
        model, update, begin = result = block_update(model, update, mean, eta, zeta, nesterov)
        yield mean, result


def test_three_blocks_worked_out_by_hand():
    def run(nesterov):
        w = d = s = np.zeros(1)
        out = []
        for way in (4.0, 4.0, -2.0):
            w, d, s = block_update(w, d, s + way, eta=0.5, zeta=1.0, nesterov=nesterov)
            out.append((w[0], d[0], s[0]))
        return out

    # CBM: G = mean - W, and the start is W.
    assert run(nesterov=False) == [(4, 4, 4), (10, 6, 10), (11, 1, 11)]
    # NBM: the way is found from W + D / 2, and counted from there.
    assert run(nesterov=True) == [(4, 4, 6), (10, 6, 13), (11, 1, 11.5)]


def test_momentum_0_and_rate_1_is_model_averaging():
    for nesterov in (False, True):
        for mean, (model, _, start) in blocks(0.0, 1.0, nesterov):
            np.testing.assert_allclose(model, mean, rtol=1e-15, atol=1e-15)
            assert (start == model).all()


def test_with_rate_1_the_global_model_of_nbm_is_the_plain_average():
    for mean, (model, _, start) in blocks(0.75, 1.0, nesterov=True):
        np.testing.assert_allclose(model, mean, rtol=1e-13, atol=1e-13)
        assert np.abs(start - model).max() > 0.1  # the look-ahead is elsewhere


def test_nbm_in_one_line():
    """s(t) = s(t-1) + zeta G(t) + eta D(t), and W(t) = s(t-1) + zeta G(t)."""
    eta, zeta = 0.6, 0.7
    before = stream(0, "start").normal(size=50)
    for mean, (model, update, start) in blocks(eta, zeta, nesterov=True):
        g = mean - before
        np.testing.assert_allclose(start, before + zeta * g + eta * update, atol=1e-13)
        np.testing.assert_allclose(model, before + zeta * g, atol=1e-13)
        before = start


def test_one_way_counts_as_often_as_models_are_averaged():
    """The weights of one G in all updates sum up to zeta / (1 - eta) = b."""
    b = 8
    eta = Bmuf().momentum(b)
    w = d = s = np.zeros(1)
    for block in range(400):
        w, d, s = block_update(w, d, s + (block == 0), eta, nesterov=False)
    assert w[0] == pytest.approx(b)


def sgd(parameters, gradient_of, lr, momentum, nesterov, steps):
    """PyTorch's SGD in six lines: the outer optimizer of DiLoCo."""
    b = None
    for step in range(steps):
        g = gradient_of(step, parameters)
        b = g if b is None else momentum * b + g
        parameters = parameters - lr * (g + momentum * b if nesterov else b)
        yield parameters


@pytest.mark.parametrize("nesterov", [True, False], ids=["nbm", "cbm"])
@pytest.mark.parametrize("eta, zeta", [(0.9, 0.7), (0.75, 1.0), (0.0, 1.0)])
def test_block_starts_are_sgd_with_momentum_on_pseudo_gradients(eta, zeta, nesterov):
    """NBM is Nesterov's (DiLoCo), CBM the classical one, on start - mean."""
    run = list(blocks(eta, zeta, nesterov))

    def pseudo_gradient(block, start):
        ways = stream(0, "found", block).normal(size=(4, 50))
        return start - (start + ways).mean(0)

    start = stream(0, "start").normal(size=50)
    outer = sgd(start, pseudo_gradient, zeta, eta, nesterov, len(run))
    for (_, ours), theirs in zip(run, outer, strict=True):
        np.testing.assert_allclose(ours.start, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("nesterov", [True, False], ids=["nbm", "cbm"])
def test_block_starts_are_torch_sgd(nesterov):
    torch = pytest.importorskip("torch", reason="torch is not installed: extra [oracle]")
    eta, zeta = 0.75, 0.5
    p = torch.nn.Parameter(torch.tensor(stream(0, "start").normal(size=50)))
    outer = torch.optim.SGD([p], lr=zeta, momentum=eta, nesterov=nesterov)
    for block, (_, ours) in enumerate(blocks(eta, zeta, nesterov)):
        start = p.detach().numpy()
        ways = stream(0, "found", block).normal(size=(4, 50))
        p.grad = torch.tensor(start - (start + ways).mean(0))
        outer.step()
        np.testing.assert_allclose(ours.start, p.detach().numpy(), rtol=0, atol=1e-13)


def test_the_other_nbm_is_cbm_with_a_larger_rate():
    """Some implementations move W itself by (1 + eta) D and never take the look-ahead back."""
    eta, zeta, w, d = 0.6, 0.7, np.zeros(50), np.zeros(50)
    for (_, ours), block in zip(
        blocks(eta, zeta * (1 + eta), nesterov=False), range(12), strict=True
    ):
        ways = stream(0, "found", block).normal(size=(4, 50))
        if block == 0:
            w = stream(0, "start").normal(size=50)
        d = eta * d + zeta * ways.mean(0)
        w = w + (1 + eta) * d
        np.testing.assert_allclose(ours.model, w, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_cut_into_shards_takes_the_same_steps_and_keeps_the_dtype(dtype):
    n = 101
    model, update, mean = (stream(5, "vector", i).normal(size=n).astype(dtype) for i in range(3))
    whole = block_update(model, update, mean, 0.75, 0.9)
    for cut in (1, 50, 100):
        for part in (slice(0, cut), slice(cut, n)):
            shard = block_update(model[part], update[part], mean[part], 0.75, 0.9)
            for ours, theirs in zip(shard, whole, strict=True):
                np.testing.assert_array_equal(ours, theirs[part], strict=True)
                assert ours.dtype == dtype


def test_the_start_is_found_again_from_the_state_to_the_bit():
    """`block_update` counts G from ``start_of(W, D)``; it is where the block did start."""
    for _, (model, update, start) in blocks(0.75, 1.0, True, dtype=np.float32):
        assert start_of(model, update, 0.75, True).tobytes() == start.tobytes()


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"steps": 0}, "--block-steps 0: must be at least 1"),
        ({"eta": 1.0}, r"--block-momentum 1\.0: must be at least 0 and less than 1"),
        ({"eta": -0.1}, r"--block-momentum -0\.1"),
        ({"zeta": 0.0}, r"--block-lr 0\.0: must be a positive, finite number"),
        ({"zeta": float("nan")}, "--block-lr nan"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        Bmuf(**wrong)


@pytest.mark.parametrize("b, eta", [(1, 0.0), (2, 0.5), (4, 0.75), (8, 0.875)])
def test_the_default_momentum_is_one_minus_one_over_the_models_averaged(b, eta):
    assert Bmuf().momentum(b) == eta


@pytest.mark.parametrize("p, stage", [(1, 0), (2, 1), (2, 3)])
def test_what_is_scored_is_w_and_training_goes_on_from_where_it_stood(p, stage):
    """Also after an error in the middle of the scoring."""
    seen = []

    def watch(replica):
        if replica.steps != 3:
            return
        stood = replica.partition.weights().copy()
        for end in (False, True):
            with suppress(ZeroDivisionError), replica.evaluated():
                inside = replica.partition.weights().copy()
                assert np.array_equal(inside, replica.block.model)
                assert not np.array_equal(inside, stood)
                if end:
                    raise ZeroDivisionError
            assert np.array_equal(replica.partition.weights(), stood)
        seen.append(stood)

    def body(comm):
        trained(comm, **options, after=watch)

    block = Bmuf(steps=3)
    options = {"partition": p, "stage": stage, "gtc_group": 1, "block": block, "steps": 3}
    spawn((0,) * 2 * p, body)
    assert len(seen) == 2 * p


@pytest.mark.parametrize("keep", [False, True])
def test_every_block_is_averaged_and_momentum_starts_anew_unless_it_is_kept(keep):
    def body(comm):
        velocity = []

        def after(replica):
            (state,) = replica.partition.states.values()
            velocity.append(state.any())

        block = Bmuf(steps=2, keep_momentum=keep)
        options = {"gtc_group": 1, "block": block, "steps": 6, "end": False}
        replica = trained(comm, after=after, **options).replica
        return replica.block.synchronised, [bool(v) for v in velocity]

    for synchronised, moving in spawn((0, 0), body):
        assert synchronised == 3
        assert moving == [True, keep] * 3


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("frames", [(4, 0, 2), (0, 0, 0), (7, 7, 7)])
def test_a_mean_over_frames_is_over_models_where_all_have_as_many_or_none(frames, exact):
    ways = stream(0, "ways").normal(size=(3, 5)).astype(np.float32)

    def body(comm):
        found = []
        for by_frames in (True, False):
            axis = Bmuf(by_frames=by_frames).build(context(5, block=comm, exact=exact))
            axis.begin(np.zeros(5, np.float32))
            axis.frames, weights = frames[comm.rank], ways[comm.rank].copy()
            axis.sync(weights)
            found.append(axis.model)
        return found

    (over_frames, over_models), *_ = ends = spawn((0, 0, 0), body)
    assert len({model.tobytes() for model, _ in ends}) == 1
    assert (over_frames.tobytes() == over_models.tobytes()) == (len(set(frames)) == 1)
    want = np.average(ways, axis=0, weights=frames if any(frames) else None)
    np.testing.assert_allclose(over_frames, want, rtol=0, atol=1e-6)


def test_frames_of_a_block_are_state_of_the_run():
    """Saved within a block whose groups have had unequal frames, and gone on with."""
    options = {"gtc_group": 1, "block": Bmuf(steps=3, by_frames=True), "steps": 4}
    options |= {"micro_batches": 4, "counts": (4, 1, 2, 0)}

    def body(comm):
        states, frames = [], []

        def keep(replica):
            states.append(tree.copied(replica.state()))
            frames.append(replica.block.frames)

        def load(replica):
            replica.load(states[1])
            frames.append(replica.block.frames)

        whole = trained(comm, after=keep, **options)
        again = trained(comm, before=load, first=2, **options)
        return whole.digest == again.digest, frames

    assert spawn((0, 0), body) == [(True, [5, 10, 0, 5, 10]), (True, [2, 4, 0, 2, 4])]


@pytest.mark.parametrize("name", ["ring", "halving-doubling", "hierarchical"])
@pytest.mark.parametrize("grid, k", [(Grid(3, 2, 1), 2), (Grid(2, 3, 1), 3), (Grid(4, 2, 1), 4)])
def test_parts_of_a_mean_are_added_as_the_whole_is_and_sent_as_stated(name, grid, k):
    """The sum of the first members' models over the whole vector, as one all-reduce makes it."""
    family = collectives.get(name)
    nodes = Nodes.of(grid.world, k)
    for n in (0, 1, 7, 101):
        setting = Setting(grid, nodes, one_unit(n, 1), family)

        def body(comm, n=n):
            groups = Groups.split(comm, grid)
            own = addend(grid.place(comm.rank).block, n, np.dtype("f4"))
            whole = own.copy()
            family.allreduce(groups.block, whole)
            comm.ledger.clear()
            averaging.Mean(Context(groups, family, one_unit(n, 1), own.dtype))(own)
            whole /= grid.blocks
            return own.tobytes() == whole.tobytes(), own.tobytes(), comm.ledger.totals()

        ends = spawn(nodes.node, body)
        assert all(same for same, _, _ in ends) and len({end for _, end, _ in ends}) == 1
        stated = sent(averaging.calls(setting))["models"]
        assert summed(totals for _, _, totals in ends) == stated
