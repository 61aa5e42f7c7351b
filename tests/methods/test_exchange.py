"""The exchange of GTC messages, on ranks that are threads."""

import threading
from collections import defaultdict

import numpy as np
import pytest

from refimpl.methods.gradient.gtc import exchange, threshold, wire
from refimpl.numerics.rng import stream
from refimpl.world.threads import spawn

N, TAU = 100, 1.0


def gradient(rank):
    """Rank 0 has little to send, the last ranks much."""
    return (stream(0, "gradient", rank).normal(size=N) * (0.5 + rank)).astype(np.float32)


def words_of(rank):
    return threshold.plain(np.zeros(N, np.float32), gradient(rank), TAU)[0]


def on_ranks(p, body):
    return spawn((0,) * p, body)


@pytest.mark.parametrize("wanted", wire.CHOICES)
@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_all_ranks_get_the_sum_of_what_the_plain_form_sends(p, wanted):
    def body(comm):
        out, counts = np.full(N, np.nan, np.float32), threshold.Counts(N, p)
        sent = exchange.exchange(comm, words_of(comm.rank), TAU, counts, out, wanted)
        counts.total(TAU, again := np.empty(N, np.float32))
        assert not again.any()
        return out, sent, comm.ledger.totals()

    total = np.zeros(N, np.float32)
    for rank in range(p):
        total += gradient(rank) - threshold.plain(np.zeros(N, np.float32), gradient(rank), TAU)[1]
    ends = on_ranks(p, body)
    lengths = [wire.size(words_of(rank), N, sent.format) for rank, (_, sent, _) in enumerate(ends)]
    for rank, (out, sent, ledger) in enumerate(ends):
        np.testing.assert_allclose(out, total, atol=1e-6)
        assert out.tobytes() == ends[0][0].tobytes()
        assert sent.entries == tuple(words_of(other).size for other in range(p))
        assert sent.bytes == lengths[rank]
        assert ledger == exchange.cost(lengths, (0,) * p).sent_by(rank)


def test_a_rank_holds_two_messages_however_many_there_are(monkeypatch):
    seen, decode = defaultdict(list), wire.decode

    def watched(message, *of):
        seen[threading.get_ident()].append(message.__array_interface__["data"][0])
        return decode(message, *of)

    monkeypatch.setattr(wire, "decode", watched)

    def body(comm):
        out, counts = np.empty(N, np.float32), threshold.Counts(N, 6)
        exchange.exchange(comm, words_of(comm.rank), TAU, counts, out)
        places = seen[threading.get_ident()]
        return len(places), len(set(places))

    assert on_ranks(6, body) == [(6, 2)] * 6


def test_a_message_that_is_no_message_is_an_error_on_all_ranks_and_no_update():
    def body(comm):
        out, counts = np.full(N, 7, np.float32), threshold.Counts(N, 3)
        words = words_of(comm.rank)
        if comm.rank == 2:
            words[:2] = words[1::-1]  # the last message to be read has two entries in wrong order
        with pytest.raises(wire.MessageError, match="do not rise"):
            exchange.exchange(comm, words, TAU, counts, out, "index")
        assert (out == 7).all()
        counts.total(TAU, out)
        assert not out.any()

    on_ranks(3, body)


def test_ranks_with_another_threshold_are_found_out():
    def body(comm):
        out, counts = np.empty(N, np.float32), threshold.Counts(N, 2)
        with pytest.raises(wire.MessageError, match="threshold"):
            exchange.exchange(comm, words_of(comm.rank), 1.0 + comm.rank, counts, out)

    on_ranks(2, body)


@pytest.mark.parametrize("wrong", [wire.HEADER_BYTES - 1, wire.HEADER_BYTES + 4 * N + 1, -8])
def test_a_length_that_no_message_has_is_an_error_before_anything_is_sent(monkeypatch, wrong):
    monkeypatch.setattr(wire, "size", lambda words, n, form: wrong)

    def body(comm):
        with pytest.raises(wire.MessageError, match=rf"lengths of GTC messages.*{wrong}"):
            exchange.exchange(
                comm, words_of(comm.rank), TAU, threshold.Counts(N, 2), np.empty(N, np.float32)
            )
        return comm.ledger.total().bytes

    assert on_ranks(2, body) == [8, 8]
