"""The norm of a vector that is cut into shards."""

import math

import numpy as np
import pytest

from refimpl.numerics import norm
from refimpl.numerics.rng import stream

CUTS = ([], [1], [0, 0, 17], [4999], list(range(0, 20_000, 7)), [16_384], [16_383, 16_385])


def gradient(n=20_000, seed=0, dtype=np.float32):
    draw = stream(seed, "test", n)
    return (draw.standard_normal(n) * np.exp(3 * draw.standard_normal(n))).astype(dtype)


def exact(shards):
    """Return the exact norm of a vector cut into these shards."""
    work = np.zeros(norm.STRIP), np.zeros(norm.STRIP, np.int64)
    top = max(norm.peak(shard) for shard in shards)
    return norm.exact_norm(sum(norm.exact_squares(shard, top, *work) for shard in shards), top)


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
    words = norm.exact_squares(
        np.ones(1 << 16), 1.0, np.zeros(norm.STRIP), np.zeros(norm.STRIP, np.int64)
    )
    # 2**16 squares of 2**48 exceed int64; the two words of a billion such shards do not.
    assert [int(word) for word in words] == [1 << 32, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_norm_is_that_of_float64(dtype):
    g = gradient(dtype=dtype)
    true = math.sqrt(math.fsum(x * x for x in g.astype(np.float64).tolist()))
    parts = [norm.square_sum(shard, np.zeros(norm.STRIP)) for shard in np.split(g, [3, 17_000])]
    assert math.isclose(math.sqrt(sum(parts)), true, rel_tol=1e-13)


def test_float_norm_survives_squares_that_float32_cannot_hold():
    assert norm.square_sum(np.array([1e30, 1e-30], np.float32), np.zeros(norm.STRIP)) > 1e59


def test_float_parts_are_added_in_rank_order():
    parts = [1.0, 2.0**-60, 2.0**-53, -1.0]
    assert norm.float_norm(parts) == math.sqrt(((1.0 + 2.0**-60) + 2.0**-53) - 1.0) == 0
    assert norm.float_norm(sorted(parts)) > 0
    assert norm.float_norm([]) == 0


@pytest.mark.parametrize("shards", [[np.zeros(3)], [np.zeros(0)], [np.zeros(0), np.zeros(2)]])
def test_norm_of_zeros_is_zero(shards):
    assert exact(shards) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norm_of_what_is_not_finite_is_infinite_wherever_it_is(bad):
    for position in range(3):
        shards = [np.ones(4, np.float32) for _ in range(3)]
        shards[position][2] = bad
        assert exact(shards) == math.inf


@pytest.mark.parametrize("top", [1.0, 1.5, 2.0, 0.7, 5e-324, 1.7e308, 2.0**-50, 3e-7])
def test_exponent_is_the_least_power_of_two_that_holds(top):
    e = norm.exponent(top)
    assert math.ldexp(top, -e) <= 1 < math.ldexp(top, 1 - e)
