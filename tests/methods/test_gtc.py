"""Threshold compression: what is sent plus what stays is what was there."""

import math

import numpy as np
import pytest
from axes import context
from hypothesis import given
from hypothesis import strategies as st

from refimpl import collectives
from refimpl.methods.gradient.gtc import guard, threshold
from refimpl.methods.gradient.gtc.bits import DENSE, pack, set_bits
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.gradient.gtc.threshold import Counts, adapted, encode, indices, rounded, signs
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError

STRIP = threshold.STRIP_BYTES // 4  # values per strip in float32
SPAN = threshold.SPAN


def alone(n, tau, dtype=np.float32, frames=1, **options):
    """Return a compressor in a group of one, which sends itself its own messages."""
    return Threshold(tau, **options).build(context(n, dtype, frames=frames))


def gradient(step, n, unit=2.0**-6, dtype=np.float32):
    """Return multiples of a power of two: all sums below are exact."""
    return (stream(0, "gradient", step).integers(-200, 200, n) * unit).astype(dtype)


def sent(words, n, tau, dtype=np.float32):
    out, counts = np.zeros(n, dtype), Counts(n, 1)
    counts.add(words)
    counts.total(tau, out)
    return out


@pytest.mark.parametrize("density", [0.0, 1e-4, 0.005, 0.05, DENSE, 0.2, 1.0])
def test_set_bits_are_found_in_order_at_any_density(density):
    mask = stream(5, "mask").random(32 * 999) < density
    mask[-1] |= density > 0
    np.testing.assert_array_equal(set_bits(pack(mask)), np.flatnonzero(mask), strict=True)


@given(st.binary(max_size=60))
def test_any_set_bits_are_found(data):
    bits = np.frombuffer(data + bytes(-len(data) % 4), np.uint8)
    want = [8 * i + j for i, byte in enumerate(bits.tolist()) for j in range(8) if byte >> j & 1]
    assert set_bits(bits).tolist() == want


def test_one_step_worked_out_by_hand():
    # tau = 2:            below  exactly  above  far above  below  exactly  above  far below
    r = np.array([1.0, 1.0, 1.0, 3.0, -1.0, -1.0, -1.0, -8.0], np.float32)
    g = np.array([0.5, 1.0, 1.5, 4.0, -0.5, -1.0, -1.5, 0.0], np.float32)
    words = encode(r, g, 2.0, np.empty(8, np.uint32))
    assert indices(words).tolist() == [2, 3, 6, 7]
    assert signs(words).tolist() == [1, 1, -1, -1]
    assert r.tolist() == [1.5, 2.0, 0.5, 5.0, -1.5, -2.0, -0.5, -6.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 7, STRIP, 2 * STRIP + 3, SPAN + STRIP + 5])
def test_messages_plus_residual_equal_the_gradients_exactly(n, dtype):
    tau = 1.5
    residual, words = np.zeros(n, dtype), np.empty(n, np.uint32)
    applied, given = np.zeros(n), np.zeros(n)
    for step in range(5):
        g = gradient(step, n, dtype=dtype)
        applied += sent(encode(residual, g, tau, words), n, tau, dtype)
        given += g
    np.testing.assert_array_equal(applied + residual, given)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_plain_form_sends_tau_where_the_sum_is_beyond_it(dtype):
    n, tau = 1000, rounded(0.7, dtype)
    residual = stream(1, "residual").normal(size=n).astype(dtype)
    g = stream(1, "gradient").normal(size=n).astype(dtype)
    words, rest = threshold.plain(residual, g, tau)
    total = residual + g
    for i, value in enumerate(sent(words, n, tau, dtype)):
        assert value == (tau if total[i] > tau else -tau if total[i] < -tau else 0)
        assert rest[i] == total[i] - value


def same_as_plain(residual, g, tau):
    """Encode, and hold message and residual to the plain form's, bit by bit."""
    plain_words, plain_rest = threshold.plain(residual, g, tau)
    words = encode(residual, g, tau, np.empty(residual.size, np.uint32))
    np.testing.assert_array_equal(words, plain_words, strict=True)
    assert residual.tobytes() == plain_rest.tobytes()
    assert residual.dtype == plain_rest.dtype
    return words


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [0.7, 3.5])
def test_encode_is_the_plain_form_wherever_strips_and_spans_end(monkeypatch, dtype, tau):
    monkeypatch.setattr(threshold, "STRIP_BYTES", 512)
    monkeypatch.setattr(threshold, "SPAN", 256)
    tau = rounded(tau, dtype)
    for n in (*range(60, 70), *range(120, 140), *range(250, 261), 510, 511, 512, 513, 900):
        residual = stream(1, "residual", n).normal(size=n).astype(dtype)
        same_as_plain(residual, stream(1, "gradient", n).normal(size=n).astype(dtype), tau)
        everything = np.full(n, 2 * tau, dtype)
        assert same_as_plain(np.zeros(n, dtype), everything, tau).size == n


# A multiple of tau, and whether it is that, the number below or the one above; or any number.
MULTIPLES = st.tuples(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0]), st.integers(-1, 1))


@given(
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([0.7, 1.0, 1e-38]),
    st.lists(MULTIPLES | st.floats(-1e30, 1e30), max_size=80),
)
def test_encode_is_the_plain_form_to_the_bit(dtype, tau, values):
    tau = rounded(tau, dtype)
    g = np.array([tau * v[0] if isinstance(v, tuple) else v for v in values], dtype)
    for i, v in enumerate(values):
        if isinstance(v, tuple) and v[1]:
            g[i] = np.nextafter(g[i], dtype(v[1] * np.inf))
    same_as_plain(np.full_like(g, -0.0), g, tau)
    same_as_plain(g / 2, g / 2, tau)


def test_words_rise_and_the_gradient_is_left_alone():
    n = STRIP + 10
    g = gradient(0, n)
    kept = g.copy()
    words = encode(np.zeros(n, np.float32), g, 0.25, np.empty(n, np.uint32))
    assert (np.diff(indices(words).astype(np.int64)) > 0).all()
    assert (g == kept).all()


def test_neither_sums_nor_residuals_hold_a_negative_zero():
    n = 1000
    residual, words = np.zeros(n, np.float32), np.empty(n, np.uint32)
    counts, out = Counts(n, 2), np.empty(n, np.float32)
    for g in (np.full(n, -0.0, np.float32), gradient(0, n, unit=0.5), -gradient(0, n, unit=0.5)):
        counts.add(encode(residual, g, 0.5, words))
        mirror = encode(np.zeros(n, np.float32), -g, 0.5, np.empty(n, np.uint32))
        counts.add(mirror)  # entries of the two signs cancel
        counts.total(0.5, out)
        assert not np.signbit(out[out == 0]).any()
        assert not np.signbit(residual[residual == 0]).any()


def test_what_is_beyond_one_tau_stays_and_grows_under_a_steady_gradient():
    compressor, g = alone(1, tau=2.0), np.zeros(1, np.float32)
    for _ in range(10):
        g[:] = 3.0
        compressor.combine(g)
        assert g[0] == 2.0
    assert compressor.residual[0] == 10.0
    assert compressor.statistics()["residual"] == 5.0


def test_nothing_and_everything_can_be_sent():
    n = STRIP + 1
    for size, entries in ((0.5, 0), (1.5, n)):
        compressor, g = alone(n, tau=1.0), np.full(n, size, np.float32)
        compressor.combine(g)
        assert compressor.statistics()["entries"] == entries
        assert (g == (entries > 0)).all()
        assert (compressor.residual == 0.5).all()


def test_not_a_number_is_not_sent():
    compressor, g = alone(3, tau=1.0), np.array([np.nan, 2.0, 0.0], np.float32)
    compressor.combine(g)
    assert g.tolist() == [0.0, 1.0, 0.0]
    assert math.isnan(compressor.residual[0])


@pytest.mark.parametrize("terms", [1, 127, 128, 40_000])
def test_counts_of_many_ranks_do_not_wrap(terms):
    counts, out = Counts(2, terms), np.empty(2, np.float64)
    for _ in range(terms):
        counts.add(np.array([1, 2], np.uint32))
    counts.total(0.5, out)
    assert out.tolist() == [terms / 2, -terms / 2]


@given(st.permutations(range(6)))
def test_the_sum_does_not_depend_on_the_order_of_the_messages(order):
    n, tau = 50, rounded(0.1, np.float32)
    messages = [
        encode(np.zeros(n, np.float32), gradient(i, n), tau, np.empty(n, np.uint32))
        for i in range(6)
    ]
    sums = np.empty((2, n), np.float32)
    for out, row in zip(sums, (range(6), order), strict=True):
        counts = Counts(n, 6)
        for i in row:
            counts.add(messages[i])
        counts.total(tau, out)
    assert sums[0].tobytes() == sums[1].tobytes()


@pytest.mark.parametrize("c", [256.0, 2.0**-10])
def test_gradients_tau_and_rate_scale_together_to_the_bit(c):
    """(c g, c tau, lr / c) is the same trajectory: momentum SGD on a quadratic."""
    n = 300
    curve = stream(2, "curve").uniform(0.5, 2, n).astype(np.float32)

    def trajectory(c):
        compressor = alone(n, tau=0.3 * c)
        w, v = stream(2, "start").normal(size=n).astype(np.float32), np.zeros(n, np.float32)
        steps = []
        for _ in range(30):
            g = curve * w * np.float32(c)
            compressor.combine(g)
            v = np.float32(0.9) * v + g
            w = w - np.float32(0.05 / c) * v
            steps.append(w.tobytes())
        return steps

    assert trajectory(c) == trajectory(1.0)


def test_mean_units_are_sum_units_over_frames():
    n, frames = 500, 64
    by_sum, by_mean = alone(n, tau=1.6), alone(n, tau=1.6 / 64, units="mean", frames=frames)
    for step in range(3):
        one, other = gradient(step, n), gradient(step, n)
        by_sum.combine(one)
        by_mean.combine(other)
        assert one.tobytes() == other.tobytes()
    a, b = by_sum.statistics(), by_mean.statistics()
    assert (a["units"], b["units"]) == ("sum", "mean")
    assert b["tau"] == pytest.approx(1.6 / 64)
    assert a["tau"] == pytest.approx(1.6)
    assert a["residual"] == pytest.approx(b["residual"])


def test_tau_is_rounded_once_to_the_dtype_of_the_gradient():
    compressor = alone(1, tau=0.1)
    assert compressor.tau == float(np.float32(0.1)) != 0.1
    assert alone(1, tau=0.1, dtype=np.float64).tau == 0.1


# ----------------------------------------------------------------------------------- options


def test_warm_up_steps_are_dense_and_owe_nothing():
    compressor = alone(20, tau=0.5, warmup=2)
    for step in range(3):
        g = gradient(step, 20)
        compressor.combine(g)
        assert compressor.statistics()["dense"] == (step < 2)
        if step < 2:
            assert (g == gradient(step, 20)).all()
            assert not compressor.residual.any()
    assert (g + compressor.residual == gradient(2, 20)).all()


def test_the_factor_halves_tau_in_twenty_steps():
    assert pytest.approx(0.5 ** (1 / 20), rel=1e-15) == threshold.FACTOR
    tau = 8.0
    for _ in range(20):
        tau = adapted(tau, 0, 1000, 0.005, np.float64)
    assert tau == pytest.approx(4)
    for _ in range(20):
        tau = adapted(tau, 6, 1000, 0.005, np.float64)
    assert tau == pytest.approx(8)
    assert adapted(tau, 5, 1000, 0.005, np.float64) == tau


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_adaptive_tau_stays_a_positive_finite_number_of_its_dtype(dtype):
    least, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    assert adapted(least, 0, 100, 0.5, dtype) == least
    assert adapted(most, 100, 100, 0.5, dtype) == most
    tau = adapted(0.1, 0, 100, 0.5, dtype)
    assert tau == rounded(0.1 * threshold.FACTOR, dtype)


@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_an_adaptive_tau_finds_the_target_density(start):
    n = 20_000
    compressor = alone(n, tau=start, target=0.01)
    seen = []
    for step in range(500):
        g = stream(3, "gradient", step).normal(size=n).astype(np.float32)
        compressor.combine(g)
        seen.append(compressor.statistics()["density"])
    assert np.mean(seen[-100:]) == pytest.approx(0.01, rel=0.25)


def test_an_adaptive_tau_stays_a_threshold_when_nothing_is_ever_sent():
    compressor, g = alone(4, tau=1.0, target=0.5), np.zeros(4, np.float32)
    for _ in range(3000):
        compressor.combine(g)
    assert compressor.tau == np.finfo(np.float32).tiny


def test_the_residual_is_clipped_at_so_many_of_the_tau_that_was_sent():
    """Not of the one that adapted meanwhile."""
    gtc = alone(3, 1.0, target=0.1, clip_every=1, clip_at=2.0)
    gtc.combine(np.array([9.0, -9.0, 0.5], np.float32))
    assert gtc.tau > 1 and gtc.residual.tolist() == [2.0, -2.0, 0.5]


def test_the_residual_is_clipped_every_so_many_steps():
    compressor, g = alone(2, tau=1.0, clip_every=3, clip_at=2.0), np.zeros(2, np.float32)
    seen = []
    for _ in range(6):
        g[:] = 3.0, -3.0
        compressor.combine(g)
        seen.append(compressor.residual.tolist())
    assert seen == [[2, -2], [4, -4], [2, -2], [4, -4], [6, -6], [2, -2]]


def test_clipping_goes_on_where_the_state_was_taken():
    def stepped(compressor):
        compressor.combine(np.array([3.0, -3.0], np.float32))
        return compressor.residual.tolist()

    first, second = (alone(2, tau=1.0, clip_every=2, clip_at=1.0) for _ in range(2))
    stepped(first)
    second.load(first.state())
    assert stepped(second) == stepped(first) == [1, -1]


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"tau": 0.0}, "--tau 0.0: must be a positive"),
        ({"tau": math.nan}, "--tau nan"),
        ({"tau": math.inf}, "--tau inf"),
        ({"units": "frames"}, "--tau-units frames: choose one of sum, mean"),
        ({"format": "zip"}, "--wire-format zip: choose one of"),
        ({"warmup": -1}, "--gtc-warmup -1: must be at least 0"),
        ({"target": 1.0}, "--target-density 1.0: must be between 0 and 1"),
        ({"clip_every": -1}, "--residual-clip-every -1: must be at least 0"),
        ({"clip_at": 0.5}, "--residual-clip 0.5: must be at least 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        Threshold(**{"tau": 1.0} | wrong)


def test_a_clip_of_residuals_that_is_never_made_is_refused():
    never, made, default = (
        Threshold(**given).refusal(collectives.get("ring"))
        for given in ({"clip_at": 3.0}, {"clip_at": 3.0, "clip_every": 2}, {})
    )
    assert made is None and default is None
    assert never == "--residual-clip 3: needs --residual-clip-every N"


def test_more_values_than_31_bits_can_index_are_refused():
    threshold.check_tau(1.0, 2**31)
    with pytest.raises(UserError, match="an index has 31 bits"):
        threshold.check_tau(1.0, 2**31 + 1)


# ------------------------------------------------------------------- residuals, state, guard


def test_keep_zero_and_fold_do_what_they_say():
    given, memory = np.array([0.5, 3.0, -0.25], np.float32), np.full(3, 99, np.float32)

    def settled(policy):
        compressor = alone(3, tau=1.0, at_sync=policy)
        compressor.combine(given.copy())
        owed = compressor.residual.copy()
        assert owed.any()
        return compressor.settle(memory), owed, compressor.residual

    step, owed, left = settled("keep")
    assert step is None and (left == owed).all() and (memory == 99).all()
    step, owed, left = settled("zero")
    assert step is None and not left.any() and (memory == 99).all()
    step, owed, left = settled("fold")
    assert (step == owed).all() and not left.any()


def test_the_peak_is_the_largest_residual_of_either_sign():
    assert threshold.peak(np.array([1.0, -5.0, 3.0])) == 5
    assert threshold.peak(np.array([1.0, -5.0, 7.0])) == 7
    assert threshold.peak(np.array([])) == 0
    assert math.isnan(threshold.peak(np.array([1.0, np.nan])))


def test_state_that_is_loaded_continues_to_the_same_bits():
    def run(compressor, steps):
        out = []
        for step in steps:
            g = gradient(step, 200)
            compressor.combine(g)
            out.append(g.tobytes())
        return out

    options = {"tau": 0.5, "target": 0.01, "warmup": 1, "clip_every": 2, "clip_at": 1.0}
    whole = run(alone(200, **options), range(6))
    first, second = alone(200, **options), alone(200, **options)
    run(first, range(3))
    second.load(first.state())
    assert run(second, range(3, 6)) == whole[3:]
    assert second.guard.entries > 0
    assert second.guard.steps == 5


@pytest.mark.parametrize(
    "tau, words",
    [(1e6, ["sends nothing", "must be below that"]), (1e-3, ["sends nearly everything", "raise"])],
)
def test_a_threshold_that_is_far_off_is_told_after_the_first_hundred_steps(tau, words):
    compressor = alone(50, tau=tau)
    assert compressor.warnings() == []
    for step in range(guard.STEPS):
        assert compressor.guard.watching
        compressor.combine(gradient(step, 50))
    assert not compressor.guard.watching
    (text,) = compressor.warnings()
    assert all(word in text for word in words)
    assert f"tau = {tau:g} (sum units)" in text
    for step in range(20):
        compressor.combine(gradient(step, 50) * 1e6)
    assert compressor.guard.steps == guard.STEPS


@pytest.mark.parametrize(
    "entries, says",
    [
        ([0, 0], "no entry in the first 2 steps"),
        ([0, 1], None),
        ([100, 100], None),  # one value in 16
        ([0, 201], "nearly everything: 6.3% of all values in the first 2 steps"),
    ],
)
def test_the_guard_tells_of_nothing_and_of_more_than_one_value_in_sixteen(entries, says):
    watch = guard.Guard(values=1600)
    assert watch.verdict(1.0, "sum", 0.5) is None
    for number in entries:
        watch.observe(number)
    for units, other in (("sum", "mean"), ("mean", "sum")):
        verdict = watch.verdict(1.0, units, 0.5)
        if says is None:
            assert verdict is None
        else:
            assert says in verdict
            assert f"({units} units)" in verdict
            assert verdict.endswith(f"found for {other}s needs {other} units")


def test_the_guard_of_no_values_says_nothing():
    watch = guard.Guard(values=0)
    watch.observe(0)
    assert watch.verdict(1.0, "sum", 0.0) is None


def test_a_threshold_that_sends_a_few_percent_is_not_told_of():
    n = 1000
    compressor = alone(n, tau=4.0)
    for step in range(guard.STEPS):
        compressor.combine(stream(4, "gradient", step).normal(size=n).astype(np.float32))
    assert 0.001 < compressor.statistics()["density"] < 1 / 16
    assert compressor.warnings() == []
