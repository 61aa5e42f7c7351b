"""Two values for every column: the means of what is below zero, and of what is not."""

import itertools

import numpy as np
import pytest
import tiny
from axes import context

from refimpl.collectives import chunks
from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.methods.gradient.onebit import columns, message
from refimpl.methods.gradient.onebit.columns import Columns
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.nn.flat import Layout, unit_of
from refimpl.numerics.rng import stream
from refimpl.world.threads import spawn


def plain(x, lengths):
    """Return Q of x, column by column: the whole method."""
    said, ends = np.empty_like(x), np.cumsum([0, *lengths])
    for column in map(slice, ends, ends[1:]):
        for side in (x[column] >= 0, x[column] < 0):
            if side.any():
                said[column][side] = x[column][side].mean(dtype=np.float64)
    return said + x.dtype.type(0)


def said_by(code, x):
    """Return (message, what it says, what it does not say)."""
    rest, out, said = x.copy(), np.empty(code.nbytes, np.uint8), np.zeros_like(x)
    code.encode(rest, out)
    code.add(out, said)
    return out, said, rest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_message_says_both_means_of_every_column(dtype):
    """Of one length and another, longer than a strip, of one sign, of zeros and of almost none."""
    lengths = np.array([5] * 9 + [3] + [20000] * 3 + [message.STRIP + 1])
    x = stream(0, "columns").normal(size=lengths.sum()).astype(dtype)
    x[:5], x[5:10], x[10:15], x[15:20] = np.abs(x[:5]), -np.abs(x[5:10]), -0.0, -5e-324
    x[20:24] = 1e30, -1e30, 1e-40, 0
    for some in (slice(None), slice(4), slice(0)):
        part = x[: lengths[some].sum()]
        _, said, rest = said_by(Columns(lengths[some], x.dtype), part)
        np.testing.assert_allclose(said, plain(part, lengths[some]), rtol=1e-6)
        assert rest.tobytes() == (part - said).tobytes() and not np.signbit(said[said == 0]).any()


def test_messages_that_cannot_have_been_written_are_refused():
    code = Columns(np.array([3, 2]), np.dtype(np.float32))
    right, _, _ = said_by(code, np.array([1, -2, 3, -4, -5], np.float32))
    low, high, bit = right.copy(), right.copy(), right.copy()
    low[:4], high[4:8] = (np.frombuffer(np.float32(x).tobytes(), np.uint8) for x in (0.5, -0.5))
    bit[-1] |= 1
    for broken, match in (
        (
            right[:-1],
            "16 bytes are not the one-bit message of 5 values in 2 columns, which has 17",
        ),
        (np.append(right, np.uint8(0)), "18 bytes"),
        (low, "on the wrong side"),
        (high, "on the wrong side"),
        (bit, "after the last sign"),
    ):
        out = np.zeros(5, np.float32)
        with pytest.raises(MessageError, match=match):
            code.add(broken, out)
        assert not out.any()


@pytest.mark.parametrize("partition, p", [(1, 1), (1, 3), (3, 2)])
def test_a_column_is_one_input_s_weights_as_far_as_shard_and_chunk_have_them(partition, p):
    """Every number is its column's, or its padding's; one number a column is said exactly."""
    net = tiny.crumbs()
    layout, number = Layout(net.units, partition), itertools.count(1)
    full = np.zeros(layout.padded, np.float32)
    for unit in layout.units:
        full[unit.place] = -next(number)
        for _, place, shape in unit.tensors:
            if 0 not in shape:
                for inputs in full[unit.place][place].reshape(-1, shape[-1]):
                    inputs[:] = next(number)
    for shard in range(partition):
        x = np.concatenate([full[unit.piece_place(shard)] for unit in layout.units])
        codes = columns.codes(layout, shard, p, x.dtype)
        for part, code in zip(chunks.slices(x, p), codes, strict=True):
            _, said, rest = said_by(code, x[part])
            assert said.tobytes() == x[part].tobytes() and not rest.any()
            assert code.columns == sum(1 for _ in itertools.groupby(x[part]))


@pytest.mark.parametrize("by_columns", [False, True])
def test_an_input_that_is_never_set_has_weights_that_do_not_move(by_columns):
    layout = unit_of([(3, 2), (2,)])
    gradient = np.array([1, -2, 0, 0, 3, 4, -5, 6], np.float32)  # the second input

    def body(comm):
        made = context(8, gradient=comm, layout=layout)
        axis = OneBit(by_columns=by_columns).build(made)
        applied = [axis.combine(gradient.copy())[2:4].copy() for _ in range(3)]
        return np.any(applied), axis.residual[2:4].any()

    assert spawn((0, 0), body) == [(not by_columns,) * 2] * 2


def test_what_is_applied_and_what_is_owed_are_the_gradients_with_columns_too():
    """Six steps on 3 ranks, a column of which two owners have a part; and every rank has one."""
    layout, p = unit_of([(2, 4), (3,)]), 3
    drawn = stream(0, "gradients").normal(size=(6, p, 11))

    def body(comm):
        made = context(11, np.float64, gradient=comm, layout=layout)
        axis, applied = OneBit(by_columns=True).build(made), np.zeros(11)
        for gradients in drawn:
            applied += axis.combine(gradients[comm.rank].copy())
        return applied, axis.residual, axis.owned

    applied, residual, owned = zip(*spawn((0,) * p, body), strict=True)
    assert {one.tobytes() for one in applied} == {applied[0].tobytes()}
    owed = sum(residual) + np.concatenate(owned)
    np.testing.assert_allclose(applied[0] + owed, drawn.sum((0, 1)), rtol=0, atol=1e-12)
