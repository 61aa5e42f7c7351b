"""The outer optimizer: Nesterov's SGD, torchft's numbers, BMUF in other words, plain averaging."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from axes import Alone, context

from refimpl import collectives, nn
from refimpl.methods import traffic
from refimpl.methods.block.bmuf import Bmuf, block_update
from refimpl.methods.block.diloco import DiLoCo, outer_step
from refimpl.methods.calls import Setting
from refimpl.methods.strategies import strategy
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid, Nodes


def test_three_blocks_worked_out_by_hand():
    w, u, out = np.zeros(1), np.zeros(1), []
    for way in (2.0, 2.0, -1.0):
        w, u = outer_step(w, u, w + way, rate=0.5, momentum=0.5)
        out.append((float(w[0]), float(u[0])))
    assert out == [(1.5, -2), (3.25, -3), (2.875, -0.5)]


# pytorch/torchft, test_fixtures/torchft.diloco_regression_test.DiLoCoMockedUpdateTest.
# test_diloco_mocked_updates_N.json: N -> delay, alpha, and layers.0 and layers.1 after steps 0 to
# 12.  Two replicas, two fragments of one weight each, one synchronised every 3 steps; a local step
# moves a weight by -2; the outer optimizer is SGD with rate 2.
ALONE = [1, -1, -3, -5, -7, -9, -11, -13, -15, -17, -19, -21, -23]
TORCHFT = {
    0: (
        (0, 0.0),
        [1, -1, -3, -11, -13, -15, -17, -19, -21, -35, -37, -39, -41],
        [1, -1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47],
    ),
    1: (
        (0, 0.5),
        [1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5, -26.5, -28.5, -30.5],
        [1, -1, -3, -5, -7, -9, -17, -19, -21, -23, -25, -27, -32],
    ),
    2: ((0, 1.0), ALONE, ALONE),
    3: (
        (1, 0.0),
        [1, -1, -3, -7, -9, -11, -13, -15, -17, -27, -29, -31, -33],
        [1, -1, -3, -5, -7, -9, -19, -21, -23, -25, -27, -29, -39],
    ),
    4: (
        (1, 0.5),
        [1, -1, -3, -6, -8, -10, -12, -14, -16, -21.5, -23.5, -25.5, -27.5],
        [1, -1, -3, -5, -7, -9, -15, -17, -19, -21, -23, -25, -29],
    ),
    5: ((1, 1.0), ALONE, ALONE),
}


def layers(n, units, comm):
    """Return a context of so many units of n numbers each."""
    layout = nn.Layout([tiny.Bare(f"layers.{i}", (n,)) for i in range(units)])
    return replace(context(n, block=comm), layout=layout)


@pytest.mark.parametrize("number", TORCHFT)
def test_the_numbers_of_torchft(number):
    (delay, alpha), *want = TORCHFT[number]
    streaming = {"fragments": 2, "delay": delay, "alpha": alpha, "steps": 3}

    def body(comm):
        outer = DiLoCo(rate=2.0, momentum=0.0, **streaming).build(layers(1, 2, comm))
        w = np.ones(2, np.float32)
        outer.begin(w)
        history = [w.tolist()]
        for step in range(1, 13):
            w -= 2
            if delay and (step + delay) % 3 == 0:
                outer.prepare(w)
            if step % 3 == 0:
                outer.sync(w)
                assert outer.said() == {"fragments": [(step // 3 - 1) % 2]}
            history.append(w.tolist())
        return [list(layer) for layer in zip(*history, strict=True)]

    assert spawn((0,) * 2, body) == [want] * 2


def test_closing_brings_all_fragments_to_the_global_model():
    """Groups that are apart hold one model afterwards, and each fragment took its outer step."""

    def body(comm):
        options = DiLoCo(steps=2, rate=1.0, momentum=0.0, fragments=3, alpha=0.5, delay=1)
        outer = options.build(layers(2, 3, comm))
        w = np.zeros(6)
        outer.begin(w)
        w += comm.rank + 1
        outer.prepare(w)
        outer.sync(w)
        apart, first = outer.together, w.copy()
        w += comm.rank
        mean = np.mean([first_of(r) + r for r in range(2)], axis=0)
        outer.sync(w, closing=True)
        assert (w == outer.model).all() and (w == mean).all() and outer.together
        return apart, first.tolist()

    def first_of(rank):  # the first fragment is half-way from 1.5, the mean, the others train on
        return np.array([(rank + 1 + 1.5) / 2] * 2 + [rank + 1.0] * 4)

    for rank, (apart, first) in enumerate(spawn((0,) * 2, body)):
        assert not apart
        assert first == first_of(rank).tolist()


def test_fragments_are_runs_of_units_and_their_syncs_send_what_one_does():
    layout = tiny.network_layout(2)
    options = DiLoCo(fragments=2)
    parts = options.parts(layout)
    assert parts == [slice(0, 77 + 42), slice(77 + 42, 77 + 42 + 20)]
    setting = Setting(Grid(2, 1, 2), Nodes.of(4, 1), layout, collectives.get("ring"))

    def nbytes(fragments):
        said = [{"fragments": fragments}]
        return traffic.sent(options.traffic(setting, said))["models"]["inter"].bytes

    whole = traffic.sent(DiLoCo().traffic(setting))["models"]["inter"].bytes
    assert nbytes([0]) + nbytes([1]) == nbytes([0, 1]) == whole


def blocks(count, n=20, models=4):
    """Yield what each of the models finds in a block (models, n): dyadic numbers."""
    for block in range(count):
        yield stream(0, "found", block).integers(-64, 65, (models, n)) / 16


@pytest.mark.parametrize("mu, nu", [(0.5, 0.5), (0.75, 1.0), (0.0, 1.0)])
def test_it_is_sgd_with_nesterovs_momentum_on_the_pseudo_gradient(mu, nu):
    """PyTorch's rule, in integers over a power of two: nothing is rounded, all bits are equal."""
    w, u = np.zeros(20), np.zeros(20)
    theirs, buffer = np.zeros(20), None
    for found in blocks(8):
        g = theirs - (theirs + found).mean(0)
        buffer = g.copy() if buffer is None else mu * buffer + g
        theirs = theirs - nu * (g + mu * buffer)
        w, u = outer_step(w, u, (w + found).mean(0), nu, mu)
        assert (w == theirs).all() and (u == buffer).all()


@pytest.mark.parametrize("mu, nu", [(0.9, 0.7), (0.5, 0.5)])
def test_it_is_torch_sgd(mu, nu):
    torch = pytest.importorskip("torch", reason="torch is not installed: extra [oracle]")
    p = torch.nn.Parameter(torch.zeros(20, dtype=torch.float64))
    outer = torch.optim.SGD([p], lr=nu, momentum=mu, nesterov=True)
    w, u = np.zeros(20), np.zeros(20)
    for found in blocks(8):
        here = p.detach().numpy()
        p.grad = torch.tensor(here - (here + found).mean(0))
        outer.step()
        w, u = outer_step(w, u, (w + found).mean(0), nu, mu)
        np.testing.assert_allclose(w, p.detach().numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("mu, nu", [(0.5, 0.5), (0.75, 1.0), (0.25, 2.0)])
def test_its_models_are_the_starts_of_nbm(mu, nu):
    """eta = mu, zeta = nu: start = W, D = -nu u, and NBM's model is W without the look-ahead."""
    w, u = np.zeros(20), np.zeros(20)
    model = update = start = np.zeros(20)
    for found in blocks(8):
        w, u = outer_step(w, u, (w + found).mean(0), nu, mu)
        mean = (start + found).mean(0)
        model, update, start = block_update(model, update, mean, mu, nu, nesterov=True)
        assert (start == w).all() and (update == -nu * u).all()
        assert (model == w + nu * mu * u).all()


def test_whole_runs_are_nbm_from_start_to_start():
    """On several ranks, with W dyadic at first and the models' sums exact."""

    def body(comm):
        outer = DiLoCo(rate=0.5, momentum=0.5).build(context(20, np.float64, block=comm))
        nbm = Bmuf(zeta=0.5, eta=0.5).build(context(20, np.float64, block=comm))
        w, s = np.ones(20), np.ones(20)
        outer.begin(w)
        nbm.begin(s)
        for found in blocks(5):
            w += found[comm.rank]
            s += found[comm.rank]
            outer.sync(w)
            nbm.sync(s)
            assert w.tobytes() == s.tobytes() == nbm.start().tobytes() == outer.start().tobytes()
        return True

    assert all(spawn((0,) * 4, body))


def test_local_sgd_is_the_mean_of_the_models():
    method = strategy("local-sgd").choose({}).block
    assert (method.rate, method.momentum) == (1.0, 0.0)

    def body(comm):
        outer = method.build(context(20, np.float64, block=comm))
        w = np.full(20, 3.0)
        outer.begin(w)
        for found in blocks(4):
            want = (outer.model + found).mean(0)
            w += found[comm.rank]
            outer.sync(w)
            assert (w == want).all() and (outer.model == want).all()
        return True

    assert all(spawn((0,) * 4, body))


@pytest.mark.parametrize(
    "method, keeps",
    [
        (DiLoCo(steps=3), True),
        (Bmuf(steps=3), True),
        (Bmuf(steps=3, keep_momentum=False), False),
    ],
)
def test_the_moments_of_the_local_optimizer_stay_over_a_sync(method, keeps):
    def body(comm):
        seen = []

        def watch(replica):
            states = replica.partition.states
            seen.append((states["step"], bool(states["first"].any())))

        options = {"gtc_group": 1, "block": method, "optimizer": "adamw", "micro_batches": 2}
        tiny.trained(comm, steps=4, after=watch, **options)
        return seen

    after = spawn((0,) * 2, body)[0]
    assert after[1] == (2, True)
    assert after[2:] == ([(3, True), (4, True)] if keeps else [(0, False), (1, True)])


def test_a_sync_sends_what_bmufs_does():
    one, other = strategy("diloco"), strategy("bmuf")
    setting = Setting(one.grid(4), Nodes.of(4, 2), tiny.network_layout(1), collectives.get("ring"))
    mine, theirs = (list(row.choose({}).block.traffic(setting)) for row in (one, other))
    assert mine == theirs and len(mine) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_cut_into_shards_takes_the_same_steps_and_keeps_the_dtype(dtype):
    w, u, mean = (stream(5, "vector", i).normal(size=101).astype(dtype) for i in range(3))
    whole = outer_step(w, u, mean, 0.7, 0.9)
    for part in (slice(0, 50), slice(50, 101)):
        cut = outer_step(w[part], u[part], mean[part], 0.7, 0.9)
        for ours, theirs in zip(cut, whole, strict=True):
            np.testing.assert_array_equal(ours, theirs[part], strict=True)
            assert ours.dtype == dtype


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"steps": 0}, "--block-steps 0: must be at least 1"),
        ({"rate": 0.0}, r"--outer-lr 0\.0: must be a positive, finite number"),
        ({"momentum": 1.0}, r"--outer-momentum 1\.0: must be at least 0 and less than 1"),
        ({"fragments": 0}, "--fragments 0: must be at least 1"),
        ({"alpha": 1.5}, r"--fragment-alpha 1\.5: must be at least 0 and at most 1"),
        ({"steps": 3, "delay": 3}, "--fragment-delay 3: must be less than --block-steps 3"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        DiLoCo(**wrong)


def test_more_fragments_than_units_are_refused():
    comm = Alone()
    DiLoCo(fragments=3).build(layers(2, 3, comm))
    with pytest.raises(UserError, match="--fragments 4: .*has 3: give at most 3"):
        DiLoCo(fragments=4).build(layers(2, 3, comm))


def test_strips_change_nothing(monkeypatch):
    def model():
        outer = DiLoCo().build(context(50, block=Alone()))
        w = stream(6, "strips").normal(size=50).astype(np.float32)
        outer.begin(w)
        outer.sync(w + 1)
        return outer.model.tobytes()

    whole = model()
    monkeypatch.setattr("refimpl.methods.block.diloco.STRIP", 7)
    assert model() == whole
