"""The global norm of a gradient that is cut into shards."""

import math

import numpy as np
import pytest

from refimpl.numerics.rng import stream
from refimpl.optim import clip
from refimpl.support.errors import UserError

CUTS = ([], [1], [0, 0, 17], [4999], list(range(0, 20_000, 7)), [16_384], [16_383, 16_385])


def gradient(n=20_000, seed=0, dtype=np.float32):
    draw = stream(seed, "test", n)
    return (draw.standard_normal(n) * np.exp(3 * draw.standard_normal(n))).astype(dtype)


class Ranks:
    """The ranks of a group in one process: runs a norm on all shards, in lock step."""

    def __init__(self, shards):
        self.shards, self.rounds = shards, 0

    def allgather_object(self, mine):
        """Return what every rank sends in this round; ``mine`` is what rank 0 sends."""
        self.rounds += 1
        if self.rounds == 1:
            sent = [clip.peak(shard) for shard in self.shards]
            self.top = max(sent)
        else:
            work = np.zeros(clip.STRIP), np.zeros(clip.STRIP, np.int64)
            sent = [clip.exact_squares(shard, self.top, *work) for shard in self.shards]
        assert np.array_equal(sent[0], mine)
        return sent


def exact(shards):
    return clip.GlobalNorm(exact=True)(Ranks(shards), shards[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 2.0**-100, 3e15, 1e-30])
def test_exact_norm_has_the_same_bits_for_every_cut(dtype, scale):
    g = (gradient() * scale).astype(dtype)
    norms = {exact(np.split(g, cuts)) for cuts in CUTS}
    assert len(norms) == 1
    true = math.sqrt(math.fsum(x * x for x in g.astype(np.float64).tolist()))
    assert math.isclose(norms.pop(), true, rel_tol=1e-12)


def test_exact_norm_does_not_depend_on_the_order_of_elements():
    g = gradient()
    assert exact([g]) == exact([np.sort(g)]) == exact([g[::-1].copy()])


def test_padding_and_empty_shards_do_not_change_the_exact_norm():
    g, none = gradient(), np.zeros(0, np.float32)
    assert exact([g]) == exact([none, g, np.zeros(5, np.float32), none])


def test_sum_of_many_equal_squares_does_not_overflow():
    g = np.full(1 << 20, 0.75, np.float32)
    assert exact([g]) == 0.75 * 1024
    assert exact([np.ones(1 << 16)]) == 256
    words = clip.exact_squares(
        np.ones(1 << 16), 1.0, np.zeros(clip.STRIP), np.zeros(clip.STRIP, np.int64)
    )
    # 2**16 squares of 2**48 exceed int64; the two words of a billion such shards do not.
    assert [int(word) for word in words] == [1 << 32, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_norm_is_that_of_float64(dtype):
    g = gradient(dtype=dtype)
    true = math.sqrt(math.fsum(x * x for x in g.astype(np.float64).tolist()))
    parts = [clip.square_sum(shard, np.zeros(clip.STRIP)) for shard in np.split(g, [3, 17_000])]
    assert math.isclose(math.sqrt(sum(parts)), true, rel_tol=1e-13)


def test_float_norm_survives_squares_that_float32_cannot_hold():
    assert clip.square_sum(np.array([1e30, 1e-30], np.float32), np.zeros(clip.STRIP)) > 1e59


@pytest.mark.parametrize("shards", [[np.zeros(3)], [np.zeros(0)], [np.zeros(0), np.zeros(2)]])
def test_norm_of_zeros_is_zero_and_leaves_them_alone(shards):
    assert exact(shards) == 0 and clip.coefficient(0.0, 1.0) == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradient_that_is_not_finite_is_an_error_on_all_ranks(bad):
    for position in range(3):
        shards = [np.ones(4, np.float32) for _ in range(3)]
        shards[position][2] = bad
        norms = {exact(shards[k:] + shards[:k]) for k in range(3)}
        assert norms == {math.inf}
    with pytest.raises(UserError, match="training diverges"):
        clip.coefficient(math.inf, 1.0)
    with pytest.raises(UserError, match="training diverges"):
        clip.coefficient(math.nan, 1.0)


def test_clipped_gradient_has_at_most_the_stated_norm_and_a_short_one_is_left_alone():
    g = gradient(dtype=np.float64)
    norm = exact([g])
    for most in (norm / 7, norm, 3 * norm):
        factor = clip.coefficient(norm, most)
        assert factor == min(1.0, most / norm)
        assert math.isclose(exact([g * factor]), min(norm, most), rel_tol=1e-12)


@pytest.mark.parametrize("top", [1.0, 1.5, 2.0, 0.7, 5e-324, 1.7e308, 2.0**-50, 3e-7])
def test_exponent_is_the_least_power_of_two_that_holds(top):
    e = clip.exponent(top)
    assert math.ldexp(top, -e) <= 1 < math.ldexp(top, 1 - e)
