"""Fixed-point sums: any order, the same bits; what does not fit is an error."""

import numpy as np
import pytest

from refimpl.numerics.exact import FRACTION_BITS, PIECE, FixedPoint
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError


def terms(count, n, scale=1.0):
    return [stream(0, "terms", i).normal(0, scale, n).astype(np.float32) for i in range(count)]


def total(addends):
    fixed, q = FixedPoint(len(addends)), np.zeros(addends[0].size, np.int64)
    for x in addends:
        fixed.add(x, q)
    out = np.zeros(addends[0].size, np.float32)
    fixed.decode(q, out)
    return out


@pytest.mark.parametrize("n", [0, 1, 5, PIECE, 2 * PIECE + 3])
def test_the_sum_does_not_depend_on_the_order_of_its_terms(n):
    addends = terms(6, n, scale=100)
    forward = total(addends)
    assert forward.tobytes() == total(addends[::-1]).tobytes()
    assert forward.tobytes() == total(addends[3:] + addends[:3]).tobytes()


def test_the_sum_is_within_the_resolution_of_the_true_one():
    addends = terms(6, 1000)
    true = np.sum([x.astype(np.float64) for x in addends], axis=0)
    # 6 roundings of half a unit, and one to float32.
    bound = 6 * 0.5 * 2.0**-FRACTION_BITS + np.abs(true) * 2.0**-24
    assert (np.abs(total(addends) - true) <= bound).all()


def test_encode_then_add_equals_add_to_zero():
    (x,) = terms(1, PIECE + 7)
    fixed = FixedPoint(1)
    encoded, added = np.full(x.size, 99, np.int64), np.zeros(x.size, np.int64)
    fixed.encode(x, encoded)
    fixed.add(x, added)
    assert (encoded == added).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**22, -(2.0**22)])
def test_what_could_overflow_is_an_error_not_a_wrap(bad):
    x = np.zeros(PIECE + 1, np.float32)
    x[-1] = bad
    with pytest.raises(UserError, match="out of the range of --reduction exact"):
        FixedPoint(2).encode(x, np.zeros(x.size, np.int64))


def test_the_largest_term_that_is_let_in_cannot_overflow_the_sum():
    for count in (1, 3, 1000):
        fixed = FixedPoint(count)
        largest = np.array([fixed.limit / 2.0**FRACTION_BITS])
        q = np.zeros(1, np.int64)
        fixed.encode(largest, q)
        assert int(q[0]) * count < 2**63


class Heard:
    def __init__(self):
        self.told, self.noticed = [], []

    def tell(self, what):
        self.told.append(what)

    def notice(self, what):
        self.noticed.append(what)


@pytest.mark.parametrize("size, noticed", [(0.0, 0), (2.0**-42, 1), (2.0**-41, 1), (2.0**-40, 0)])
def test_what_is_added_as_nothing_is_noticed_and_true_zeros_are_not(size, noticed):
    heard, out = Heard(), np.ones(3, np.int64)
    FixedPoint(1, faults=heard).encode(np.full(3, -size), out)
    assert len(heard.noticed) == noticed and heard.told == []
    assert (out == 0).all() == (size < 2.0**-40)


def test_what_is_added_as_nothing_in_a_part_only_is_not_noticed():
    heard, x = Heard(), np.full(2 * PIECE, 1e-14)
    x[-1] = 1
    FixedPoint(1, faults=heard).encode(x, np.zeros(x.size, np.int64))
    assert heard.noticed == []


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e30])
def test_zeros_stand_for_a_piece_that_cannot_be_added(bad):
    heard, out = Heard(), np.ones(PIECE + 2, np.int64)
    x = np.ones(PIECE + 2)
    x[3] = bad
    FixedPoint(1, faults=heard).encode(x, out)
    assert len(heard.told) == 1 and not out[:PIECE].any()
    assert out[PIECE:].tolist() == [1 << FRACTION_BITS] * 2
