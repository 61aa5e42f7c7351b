"""Chunked top-k: the largest of every chunk are sent, what was not sent or sent wrong stays."""

import numpy as np
import pytest
import tiny
from axes import context
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl import collectives, nn
from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.methods.gradient.gtc.header import MessageError
from refimpl.methods.gradient.topk import exchange
from refimpl.methods.gradient.topk.message import Chunks, Run, aligned, largest, owned, plain, runs
from refimpl.methods.gradient.topk.method import TopK
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import one_unit
from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid, Nodes


def chunks_of(n, length=4, most=2, two_bit=False, dtype=np.float32):
    return Chunks(one_unit(n), 0, length, most, two_bit, np.dtype(dtype))


def said(chunks, x):
    """Return (message, what the message says, what it does not say)."""
    rest, out, sent = x.copy(), np.full(chunks.message_bytes, 255, np.uint8), np.zeros_like(x)
    chunks.encode(rest, out)
    index, values = chunks.decode(out)
    sent[index] = values
    return out, sent, rest


def test_a_small_message_has_the_bytes_worked_out_by_hand():
    x = np.array([1, -3, 3, 0.5, 0, 0, 0, 0, 2, -2, 4], np.float32)
    out, sent, rest = said(chunks_of(11), x)
    places = bytes([1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0])
    assert out.tobytes() == places + np.array([-3, 3, 0, 0, 2, 4], "<f4").tobytes()
    assert sent.tolist() == [0, -3, 3, 0, 0, 0, 0, 0, 2, 0, 4]
    assert rest.tolist() == [1, 0, 0, 0.5, 0, 0, 0, 0, 0, -2, 0]

    out, sent, rest = said(chunks_of(11, two_bit=True), x)
    # t is 2, 0 and 4; -3 is minus 3/2 t, 3 is 3/2 t, 2 is 1/2 t.
    log2 = np.array([1, -32768, 2], "<i2").tobytes()
    codes = bytes([0b11_01_01_01, 0b00_01_0000])  # |0| >= t = 0: 3/2 of nothing
    assert out.tobytes() == places + log2 + codes
    assert sent.tolist() == [0, -3, 3, 0, 0, 0, 0, 0, 2, 0, 6]
    assert rest.tolist() == [1, 0, 0, 0.5, 0, 0, 0, 0, 0, -2, -2]


@settings(max_examples=25)
@given(st.integers(0, 200), st.sampled_from([np.float32, np.float64]))
def test_the_largest_are_those_of_a_stable_sort(seed, dtype):
    rng = stream(seed, "largest")
    x = rng.integers(-4, 5, (3, 12)).astype(dtype)  # many are equal
    for most in (1, 5, 11, 12):
        np.testing.assert_array_equal(largest(x, most), plain(x, most))


def test_numbers_that_are_none_are_the_largest_and_leave_the_others_their_places():
    x = np.array([[1, np.nan, 0, -np.inf, np.nan, 2]], np.float32)
    assert largest(x, 3).tolist() == [[1, 3, 4]]


@settings(max_examples=25)
@given(st.integers(0, 100), st.booleans(), st.sampled_from([(37, 8, 3), (5, 1, 1), (9, 16, 20)]))
def test_message_plus_rest_equal_the_values_exactly(seed, two_bit, shape):
    n, length, most = shape
    x = (stream(seed, "values").integers(-1000, 1001, n) / 8).astype(np.float32)
    _, sent, rest = said(chunks_of(n, length, most, two_bit), x)
    np.testing.assert_array_equal(sent + rest, x)
    if not two_bit:
        assert (rest[sent != 0] == 0).all()


@settings(max_examples=25)
@given(st.integers(0, 100))
def test_two_bits_are_wrong_by_half_a_power_of_two_at_most(seed):
    x = stream(seed, "values").normal(size=(4, 8)).astype(np.float32)
    _, _, rest = said(chunks_of(32, 8, 8, two_bit=True), x.ravel())
    top = np.abs(x).max(axis=1, keepdims=True)
    assert (np.abs(rest.reshape(x.shape)) <= 2 ** np.floor(np.log2(top)) / 2).all()


def test_a_chunk_of_numbers_that_are_no_normal_ones_sends_zeros():
    x = np.array([1e-40, -1e-39, 0, 1], np.float32)
    _, sent, rest = said(chunks_of(4, length=3, most=3, two_bit=True), x)
    assert not sent[:3].any()
    assert rest[:3].tobytes() == x[:3].tobytes() and rest[3] == -0.5


def test_chunks_begin_with_every_piece_and_padding_is_in_none():
    assert runs([(0, 9), (9, 0), (10, 3)], 4) == [Run(0, 2, 4), Run(8, 1, 1), Run(10, 1, 3)]
    layout = nn.Layout([tiny.Bare("a", (5,)), tiny.Bare("b", (2,))], 3)
    assert [owned(layout, shard) for shard in range(3)] == [
        [(0, 2), (2, 1)],
        [(0, 2), (2, 1)],
        [(0, 1), (2, 0)],
    ]
    assert Chunks(one_unit(0), 0, 4, 2, True, np.dtype("f4")).message_bytes == 0


@pytest.mark.parametrize("p, length, fits", [(1, 7, True), (2, 8, True), (4, 8, False)])
def test_shards_have_the_chunks_of_the_whole_where_their_pieces_are_multiples(p, length, fits):
    layout = nn.Layout([tiny.Bare("a", (48,)), tiny.Bare("b", (32 if fits else 8,))], p)
    assert aligned(layout, length) == TopK(length=length).keeps_bits(layout) == fits


@pytest.mark.parametrize("two_bit", [False, True])
def test_messages_that_nobody_can_have_written_are_refused(two_bit):
    chunks = chunks_of(11, most=3, two_bit=two_bit)
    out, _, _ = said(chunks, np.arange(11, dtype=np.float32))
    chunks.decode(out)
    far, twice, after = out.copy(), out.copy(), out.copy()
    far[0:2].view("<u2")[:] = 4
    twice[2:4] = twice[0:2]
    after[-1] |= 1
    wrong = [(out[:-1], "bytes are not the message of 9 entries in 3 chunks"), (far, "rise")]
    wrong += [(twice, "rise")] + ([(after, "after the last code")] if two_bit else [])
    for broken, match in wrong:
        with pytest.raises(MessageError, match=match):
            chunks.decode(broken)


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"most": 0}, "--topk 0: must be at least 1"),
        ({"length": 65537}, "--topk-chunk 65537: must be at least 1 and at most 65536"),
        ({"decay": 1.5}, r"--topk-decay 1\.5: must be at least 0 and at most 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        TopK(**wrong)


# ------------------------------------------------------------------------------- on several ranks


@pytest.mark.parametrize("over_senders", [False, True])
@pytest.mark.parametrize("p, n, two_bit", [(1, 9, False), (2, 20, True), (3, 37, False)])
def test_the_sum_over_ranks_is_the_definition_computed_alone(p, n, two_bit, over_senders):
    """Three steps, in rank order; the residuals, and what the ledger counts, too."""
    given = stream(2, "gradients").normal(size=(3, p, n)).astype(np.float32)
    options = TopK(
        most=2, length=6, decay=0.75, two_bit=two_bit, over_senders=over_senders, warmup=0
    )

    def body(comm):
        axis, found = options.build(context(n, gradient=comm)), []
        for step in range(3):
            comm.ledger.clear()
            total = axis.combine(given[step, comm.rank].copy()).copy()
            found.append((total, axis.residual.copy(), comm.ledger.totals(), axis.statistics()))
        return found

    ends, residuals = spawn((0,) * p, body), np.zeros((p, n), np.float32)
    chunks = options.chunks(one_unit(n), 0, np.dtype("f4"))
    for step in range(3):
        residuals = np.float32(0.75) * residuals + given[step]
        total, senders = np.zeros(n, np.float32), np.zeros(n, int)
        for rank in range(p):
            for first in range(0, n, 6):
                chunk = residuals[rank, first : first + 6]
                at = plain(chunk[None], 2)[0]
                values = chunk[at].copy()
                if two_bit:
                    t = np.float32(2 ** np.floor(np.log2(np.abs(values).max())))
                    values = np.sign(values) * np.where(np.abs(values) < t, t / 2, 3 * t / 2)
                chunk[at] -= values
                total[first + at] += values
                senders[first + at] += 1
        if over_senders:
            total = total * np.float32(p) / np.maximum(senders, 1).astype(np.float32)
        for rank, found in enumerate(ends):
            got, residual, sent, numbers = found[step]
            assert got.tobytes() == total.tobytes(), (step, rank)
            assert residual.tobytes() == residuals[rank].tobytes(), (step, rank)
            assert sent == exchange.cost(chunks.message_bytes, (0,) * p).sent_by(rank)
            assert numbers == {
                "dense": False,
                "entries": 2 * (n // 6) + min(2, n % 6),
                "message_bytes": chunks.message_bytes,
                "residual": np.abs(residual).max(),
            }


def test_what_was_applied_and_what_is_owed_are_all_gradients():
    given = stream(3, "gradients").integers(-64, 65, (6, 2, 30)).astype(np.float32)

    def body(comm):
        axis = TopK(most=1, length=8, two_bit=True, warmup=1).build(context(30, gradient=comm))
        applied = sum(axis.combine(given[step, comm.rank].copy()).copy() for step in range(6))
        return applied, axis.residual

    ends = spawn((0,) * 2, body)
    owed = ends[0][1] + ends[1][1]
    np.testing.assert_array_equal(ends[0][0] + owed, given.sum((0, 1)))


def test_a_group_whose_shard_has_padding_sends_less_on_paper_and_in_a_run():
    grid, options = Grid(1, 2, 4), TopK(most=1, length=2)
    nodes = Nodes.of(8)

    def body(comm):
        given = {"grid": grid, "methods": Methods(Sharded(), options), "clip": None}
        replica = tiny.trained(comm, steps=1, micro_batches=8, **given).replica
        sent = comm.ledger.by_purpose()["gradients"]["intra"].bytes
        return sent, replica.gradient.chunks.message_bytes, replica.context.layout

    ends = spawn(nodes.node, body)
    layout = ends[0][2]
    setting = Setting(grid, nodes, layout, collectives.get("ring"), exact=True)
    calls = list(options.traffic(setting))
    found = [call.own.total()["intra"].bytes for call in calls]
    assert found == [2 * ends[call.group[0]][1] for call in calls] and len(set(found)) > 1
    reduced = traffic.sent(Sharded().traffic(setting))["gradients"]["intra"].bytes
    assert sum(sent for sent, *_ in ends) == sum(found) + reduced


def even(dtype=np.float32):
    """A network of units of 224 and 272 numbers: pieces are multiples of 4 for p = 2 and 4."""
    net = nn.Sequential(nn.Affine("a", 13, 16, 1), nn.Tanh(), nn.Affine("b", 16, 16, 1))
    net.plan(tiny.BATCH, dtype)
    return net


@pytest.mark.parametrize("two_bit", [False, True])
def test_shards_that_chunks_fit_change_no_bit(two_bit):
    options = TopK(most=1, length=4, decay=0.9, two_bit=two_bit)

    def digest(ranks, partition=1, network=even):
        given = {"partition": partition, "stage": 3 if partition > 1 else 0, "micro_batches": 8}
        given |= {"gradient": options, "network": network, "steps": 3}
        (one,) = {t.digest for t in spawn((0,) * ranks, lambda c: tiny.trained(c, **given))}
        return one

    assert digest(4, 2) == digest(2)
    assert digest(8, 4) == digest(2)
    assert digest(4, 2, tiny.network) != digest(2, 1, tiny.network)


def test_padding_stays_zero_though_two_bits_cannot_say_zero():
    def body(comm):
        options = TopK(most=4, length=4, two_bit=True)
        replica = tiny.trained(
            comm, partition=2, stage=3, gradient=options, micro_batches=4, steps=2
        ).replica
        layout, shard = replica.context.layout, comm.rank % 2
        return [
            replica.partition.weights()[start:][values : unit.piece]
            for (start, values), unit in zip(owned(layout, shard), layout.units, strict=True)
        ]

    padding = np.concatenate([one for rank in spawn((0,) * 4, body) for one in rank])
    assert not padding.any()
