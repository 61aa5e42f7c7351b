"""One bit per value: what the bits do not say stays, at the sender and at the owner."""

import itertools

import numpy as np
import pytest
from axes import context
from hypothesis import given
from hypothesis import strategies as st

from refimpl import collectives
from refimpl.collectives.chunks import offsets
from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.methods.gradient.onebit.message import (
    HEADER_BYTES,
    STRIP,
    add,
    encode,
    message_bytes,
    scale_of,
)
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError
from refimpl.world.threads import spawn


def message_of(x):
    """Return (message, what the message says, what it does not say)."""
    rest, out, said = x.copy(), np.empty(message_bytes(x.size), np.uint8), np.zeros_like(x)
    encode(rest, out)
    add(out, said)
    return out, said, rest


def test_a_small_message_has_the_bytes_worked_out_by_hand():
    x = np.array([3.0, -1.0, 0.0, -2.0, 4.0, -0.0, 1.0, 5.0, -2.0], np.float32)
    message, said, rest = message_of(x)
    # mean |x| = 18 / 9 = 2 = 0x4000000000000000; zero, -0.0 too, counts as plus.
    assert message.tobytes() == bytes([0, 0, 0, 0, 0, 0, 0, 0x40, 0b10101111, 0])
    assert said.tolist() == [2, -2, 2, -2, 2, 2, 2, 2, -2]
    assert rest.tolist() == [1, 1, -2, 0, 2, -2, -1, 3, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 8, 13, STRIP, 2 * STRIP + 9])
def test_a_message_is_the_scaled_sign_of_every_value(n, dtype):
    x = stream(0, "values").normal(size=n).astype(dtype)
    _, said, rest = message_of(x)
    scale = dtype(np.abs(x).mean(dtype=np.float64)) if n else dtype(0)
    assert scale_of(x) == pytest.approx(float(scale), rel=1e-6)
    assert scale_of(x) == float(dtype(scale_of(x)))
    want = np.where(x >= 0, dtype(scale_of(x)), -dtype(scale_of(x)))
    np.testing.assert_array_equal(said, want, strict=True)
    np.testing.assert_array_equal(rest, x - said, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [7, 8, 9, STRIP - 1, STRIP, STRIP + 1, 2 * STRIP + 9])
def test_a_long_message_is_the_plain_one_wherever_strips_end(n, dtype):
    x = stream(1, "values").normal(size=n).astype(dtype)
    x[::5] = 0
    message, _, rest = message_of(x)
    plain, plain_rest = onebit.plain(x)
    assert message.tobytes() == plain
    assert rest.tobytes() == plain_rest.tobytes()


@given(
    st.sampled_from([np.float32, np.float64]),
    st.lists(st.sampled_from([0.0, -0.0, 1e-40, -1e-40]) | st.floats(-1e30, 1e30), max_size=40),
)
def test_a_message_is_the_plain_one(dtype, values):
    x = np.array(values, dtype)
    message, said, rest = message_of(x)
    plain, plain_rest = onebit.plain(x)
    assert message.tobytes() == plain
    assert rest.tobytes() == plain_rest.tobytes()
    np.testing.assert_array_equal(said, np.where(x >= 0, 1, -1) * dtype(scale_of(x)))


@given(st.integers(0, 6), st.integers(0, 100))
def test_message_plus_rest_equal_the_values_exactly(power, seed):
    # A power of two values that are integers: the scale is dyadic, and all sums are exact.
    x = stream(seed, "values").integers(-1000, 1000, 2**power).astype(np.float64)
    _, said, rest = message_of(x)
    np.testing.assert_array_equal(said + rest, x)


def test_the_scale_has_the_least_square_error():
    x = stream(0, "values").normal(size=500)
    error = [np.square(np.abs(x) - s).sum() for s in scale_of(x) * np.array([0.99, 1, 1.01])]
    assert error[1] == min(error)


def test_a_scale_of_zero_says_zero_and_never_its_negative():
    tiny = np.zeros(9)
    tiny[3] = -5e-324  # the mean of these is too small for a float64
    for x in (np.zeros(9), tiny):
        _, said, rest = message_of(x)
        assert said.tobytes() == bytes(9 * 8)
        assert rest.tobytes() == x.tobytes()


def test_messages_that_are_not_for_so_many_values_are_refused():
    message, _, _ = message_of(np.arange(9.0))
    for broken, match in (
        (message[:-1], "9 bytes are not the one-bit message of 9 values, which has 10"),
        (np.append(message, np.uint8(0)), "11 bytes"),
        (message[:3], "3 bytes"),
        (np.append(message[:-1], np.uint8(0b11000000)), "after the last sign"),
    ):
        out = np.zeros(9)
        with pytest.raises(MessageError, match=match):
            add(broken, out)
        assert not out.any()
    message[:HEADER_BYTES] = np.frombuffer(np.float64(-2.0).tobytes(), np.uint8)
    with pytest.raises(MessageError, match=r"scale -2\.0"):
        add(message, np.zeros(9))


def test_cost_is_a_thirty_second_of_the_dense_sum_and_two_scales():
    n, p = 1 << 20, 4
    sent = onebit.cost(n, (0,) * p).sent_by(1)["intra"]
    assert sent.messages == 2 * (p - 1)
    assert sent.bytes == 2 * (p - 1) * (n // p // 8 + HEADER_BYTES)


def test_a_negative_warm_up_is_refused():
    with pytest.raises(UserError, match="--gtc-warmup -1: must be at least 0"):
        OneBit(warmup=-1)


def test_a_mask_needs_dense_steps_to_be_found_in():
    refusals = [
        OneBit(mask=True, warmup=steps).refusal(collectives.get("ring")) for steps in (0, 1)
    ]
    assert "--onebit-mask: needs --gtc-warmup N" in refusals[0] and refusals[1] is None


# ------------------------------------------------------------------------------- on several ranks


@pytest.mark.parametrize("mask", [False, True])
def test_a_value_without_gradient_swings_or_is_left_alone_if_masked(mask):
    """Values 1 and 4 of 5, on 2 ranks; the third is zero in the first dense step only."""
    gradient = np.array([1.0, 0, 3, 4, 0], np.float32)

    def body(comm):
        axis = OneBit(warmup=2, mask=mask).build(context(5, gradient=comm))
        for step in range(2):
            axis.combine(gradient * np.array([1, 1, step, 1, 1], np.float32))
        applied = [axis.combine(gradient.copy()).copy() for _ in range(3)]
        again = OneBit(warmup=2, mask=mask).build(context(5, gradient=comm))
        again.load(axis.state())
        assert again.combine(gradient.copy()).tobytes() == axis.combine(gradient.copy()).tobytes()
        return np.array(applied), axis.residual

    for applied, residual in spawn((0, 0), body):
        silent = not applied[:, [1, 4]].any() and not residual[[1, 4]].any()
        assert silent == mask and applied[:, [0, 2, 3]].all()


@pytest.mark.parametrize("n", [0, 2, 24, 37])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_sum_over_ranks_is_the_definition_computed_alone(p, n):
    """Three steps, as in the chapter: senders' residuals, owners' sums, what owners pass on."""
    cut = offsets(n, p)
    chunks = [slice(*ends) for ends in itertools.pairwise(cut)]
    given = stream(2, "gradients").normal(size=(3, p, n)).astype(np.float32)

    def body(comm):
        residual, found = np.zeros(n, np.float32), []
        owned = np.zeros(int(cut[comm.rank + 1] - cut[comm.rank]), np.float32)
        for step in range(3):
            g = given[step, comm.rank].copy()
            onebit.allreduce(comm, g, residual, owned)
            found.append((g, residual.copy(), owned.copy()))
        return found, comm.ledger.totals()

    ends = spawn((0,) * p, body)
    residuals, sums = np.zeros((p, n), np.float32), np.zeros(n, np.float32)
    for step in range(3):
        residuals += given[step]
        result = np.empty(n, np.float32)
        for chunk in chunks:
            for rank in range(p):
                _, said, residuals[rank, chunk] = message_of(residuals[rank, chunk])
                sums[chunk] += said
            _, result[chunk], sums[chunk] = message_of(sums[chunk])
        for rank, (found, _) in enumerate(ends):
            assert found[step][0].tobytes() == result.tobytes()
            assert found[step][1].tobytes() == residuals[rank].tobytes()
            assert found[step][2].tobytes() == sums[chunks[rank]].tobytes()
    for rank, (_, sent) in enumerate(ends):
        cost = onebit.cost(n, (0,) * p).sent_by(rank)
        assert sent == {link: count + count + count for link, count in cost.items()}


def test_statistics_say_what_a_rank_sent_for_its_gradient():
    def body(comm):
        axis = OneBit(warmup=1).build(context(7, gradient=comm))
        said = []
        for _ in range(2):
            comm.ledger.clear()
            axis.combine(np.ones(7, np.float32))
            said.append(axis.statistics())
        return said, comm.ledger.total().bytes

    for said, sent in spawn((0,) * 3, body):
        assert said[0] == {"dense": True}
        assert said[1] == {"dense": False, "message_bytes": sent, "residual": 0, "owned": 0}


def test_a_rank_keeps_what_its_own_chunk_is_long():
    def body(comm):
        return OneBit().build(context(7, gradient=comm)).owned.size

    assert spawn((0,) * 3, body) == [3, 2, 2]
