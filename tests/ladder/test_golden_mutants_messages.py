"""Collectives and compression with bugs that others shipped: the check names each.

``says`` is the array to look at, which the check must name first.  `broken` makes the backends.
"""

import numpy as np
import pytest
from broken import after, first, instead, only, settings

from refimpl.collectives import chunks as cut
from refimpl.collectives import hierarchical, ring, tree
from refimpl.golden import Reference, cases
from refimpl.methods.gradient.gtc import codes, header, rice, threshold, wire
from refimpl.methods.gradient.onebit import columns
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.methods.gradient.topk import message as topk
from refimpl.nn.flat import unit_of

# --------------------------------------------------------------------------------- collectives

COLLECTIVES = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce", "alltoall")


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        # Everybody starts with the left neighbour's block, which nobody has yet.
        (ring, "gathered", lambda p, r, s: (r - s - 1) % p, "collectives.ring/allgather.n2"),
        # Everybody ends with the sum of the neighbour's block.
        (ring, "reduced", lambda p, r, s: (r - s) % p, "collectives.ring/reduce-scatter.n2"),
        # The surplus goes to the last ranks.
        (
            cut,
            "offsets",
            lambda n, p: np.arange(p + 1) * n // p,
            "collectives.ring/allgather.n2.uneven",
        ),
        # The root is always 0.
        (
            tree,
            "parent",
            lambda v: max(0, v - 1),
            "collectives.tree/",
        ),
        # After the gather between nodes, blocks lie as they came: in order of local index.
        (
            hierarchical,
            "column",
            lambda place, local: [row[-1 - local] for row in place],
            "collectives.hierarchical/",
        ),
    ],
    ids=["gather-starts-late", "scatter-ends-late", "long-blocks-last", "chain", "local-index"],
)
def test_indices_of_collectives(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only(*COLLECTIVES), "collectives.*").startswith(says)


def every(x, rank_count):
    return np.stack([x] * rank_count)


@pytest.mark.parametrize(
    "backend, says",
    [
        (
            after("allreduce", lambda o, i: o["result"].__itruediv__(np.float32(len(i["x"])))),
            "collectives.ring/allreduce.n2.tiny/result",
        ),
        (
            instead("allreduce", lambda r, i, s: {"result": every(i["x"].sum(0), len(i["x"]))}),
            "collectives.ring/allreduce.n3.order/result",
        ),
        (
            instead("reduce", lambda r, i, s: {"result": i["x"].sum(0) + i["x"][s["root"]]}),
            "collectives.tree/reduce.n1.tiny/result",
        ),
        (
            settings("broadcast", root=0),
            "collectives.tree/broadcast.n2.tiny/",
        ),
        (
            after("reduce_scatter", lambda o, i: o.update(result=np.roll(o["result"], 1, 0))),
            "collectives.ring/reduce-scatter.n2.tiny/result",
        ),
        (
            after("allgather", lambda o, i: o["result"][:, -1:].fill(0)),
            "collectives.ring/allgather.n1.tiny/result",
        ),
    ],
    ids=["mean", "library's-order", "root-twice", "root-0", "neighbour's-block", "last-dropped"],
)
def test_results_of_collectives(backend, says):
    assert first(backend).startswith(says)


def test_shards_in_the_wrong_order_after_a_hierarchical_gather(monkeypatch):
    """Gathered between nodes and then inside, blocks lie by local index unless re-ordered."""

    def unordered(right, inputs, s):
        found = right(inputs, s)
        if s["algorithm"] == "hierarchical":
            place = hierarchical.grid(tuple(s["nodes"]))
            block = cut.slices(found["result"][0], len(s["nodes"]))
            by_local = [members[j] for j in range(len(place[0])) for members in place]
            for row in found["result"]:
                row[:] = np.concatenate([row[block[owner]] for owner in by_local])
        return found

    says = "collectives.hierarchical/allgather.2x2.tiny/result"
    assert first(instead("allgather", unordered)) == says


def rank_order(nodes):
    """Nodes by their first rank are taken to be runs of neighbours."""
    k = len(nodes) // len(set(nodes))
    return [list(range(first, first + k)) for first in range(0, len(nodes), k)]


def masked(place, local, right=hierarchical.column):
    """A local index is cut by k - 1, as if k were a power of two."""
    return right(place, local & (len(place[0]) - 1) if len(place[0]) > 1 else local)


@pytest.mark.parametrize(
    "name, bug, says",
    [
        ("column", masked, "collectives.hierarchical/allgather.2x3.uneven/"),
        ("grid", rank_order, "collectives.hierarchical/"),
    ],
)
def test_nodes(monkeypatch, name, bug, says):
    monkeypatch.setattr(hierarchical, name, bug)
    pattern = [f"collectives.hierarchical/*.{kind}*" for kind in ("2x3", "3x2-mixed")]
    assert first(only(*COLLECTIVES), pattern).startswith(says)


def summed(x):
    """Whatever there is, at least one value is sent."""
    return every(np.resize(x.sum(0), max(1, x.shape[1])), len(x))


def one_each(n, p):
    """Every rank has a block, if there are values or not."""
    return np.arange(p + 1) * max(1, n // p)


@pytest.mark.parametrize(
    "backend, says",
    [
        (
            instead(
                "reduce_scatter",
                lambda r, i, s: {"result": i["x"].sum(0)[one_each(i["x"].shape[1], 4)[:-1, None]]},
            ),
            "reduce-scatter.n4.few",
        ),
        (
            instead("allreduce", lambda r, i, s: {"result": summed(i["x"])}),
            "allreduce.n3.none",
        ),
    ],
)
def test_fewer_values_than_ranks(backend, says):
    kinds = ["collectives.ring/*.few", "collectives.ring/*.none"]
    assert first(backend, kinds).startswith(f"collectives.ring/{says}")


# --------------------------------------------------------------------------------- compression

GTC = tuple(name for name in vars(Reference) if name.startswith("gtc"))


def encode(send, keep):
    """Return an encoder: ``send(total, tau)`` where, ``keep(total, sent)`` afterwards."""

    def bug(residual, gradient, tau, words):
        total = residual + gradient
        index = np.flatnonzero(send(total, tau))
        plus = total[index] > 0
        residual[:] = keep(total, index, np.where(plus, tau, -tau), gradient)
        words[: index.size] = index << 1 | plus
        return words[: index.size]

    return bug


def less_sent(total, index, sent, gradient):
    rest = total.copy()
    rest[index] -= sent.astype(rest.dtype)
    return rest


def zeroed(total, index, sent, gradient):
    rest = total.copy()
    rest[index] = 0
    return rest


def forgotten(total, index, sent, gradient):
    return np.zeros_like(total)


def sent_alone(total, index, sent, gradient):
    """Error feedback is only of the gradient, and not of what was owed before."""
    rest = gradient.copy()
    rest[index] -= sent.astype(rest.dtype)
    return rest


def beyond(total, tau):
    return np.abs(total) > tau


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (
            threshold,
            "encode",
            encode(lambda total, tau: np.abs(total) >= tau, less_sent),
            "compression.gtc/encode.tiny/entries",
        ),
        (threshold, "encode", encode(beyond, zeroed), "compression.gtc/encode.tiny/words"),
        (threshold, "encode", encode(beyond, forgotten), "compression.gtc/encode.tiny/words"),
        (threshold, "encode", encode(beyond, sent_alone), "compression.gtc/encode.tiny/words"),
        (
            threshold,
            "signs",
            lambda words: (1 - 2 * (words & 1)).astype(np.int8),
            "compression.gtc/decode.index.one/values",
        ),
        (
            threshold,
            "adapted",
            lambda tau, entries, n, target, dtype, right=threshold.adapted: right(
                tau, 2 * target * n - entries, n, target, dtype
            ),
            "compression.gtc/adapt/tau",
        ),
        (
            threshold,
            "adapted",
            lambda tau, entries, n, target, dtype, f=threshold.FACTOR: threshold.rounded(
                tau * f ** np.sign(target * n - entries), dtype
            ),
            "compression.gtc/adapt.smallest/tau",
        ),
        (wire, "_WORD", np.dtype(">u4"), "compression.gtc/message.index.one/message"),
        (
            rice,
            "parameter",
            lambda m, n, right=rice.parameter: right(m, n) + 1,
            "compression.gtc/message.rice.empty/message",
        ),
        (header, "MAGIC", b"GTC2", "compression.gtc/message.index.empty/message"),
        (
            rice,
            "gaps",
            lambda index: np.diff(index, prepend=np.uint32(0)),
            "compression.gtc/message.rice.all/message",
        ),
    ],
    ids=[
        "tau-itself-is-sent",
        "residual-zeroed-where-sent",
        "no-residual",
        "residual-not-carried",
        "sign-bit-turned",
        "tau-steered-away",
        "tau-below-normal-numbers",
        "big-endian",
        "rice-parameter-off-by-one",
        "other-magic",
        "gaps-one-too-long",
    ],
)
def test_threshold_compression(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    assert first(only(*GTC)) == says


def test_two_bit_codes_in_the_other_bit_order(monkeypatch):
    right = np.packbits
    monkeypatch.setattr(np, "packbits", lambda bits, **_: right(bits, bitorder="little"))
    assert first(only("gtc_message")) == "compression.gtc/message.two-bit.one/message"


def own_gradient(outputs, inputs):
    """Every rank adds its gradient, and not its own message, to the others' messages."""
    tau = 1.0
    before = inputs["gradient"].cumsum(0) - outputs["residual"]
    sent = np.diff(before, axis=0, prepend=0)
    outputs["total"] += (inputs["gradient"] - sent) * np.float32(tau)


def without_own(outputs, inputs):
    sent = np.diff(inputs["gradient"].cumsum(0) - outputs["residual"], axis=0, prepend=0)
    outputs["total"] -= sent


@pytest.mark.parametrize(
    "change, says",
    [
        (without_own, "exchange.tiny.n2/total"),
        (own_gradient, "exchange.tiny.n2/total"),
        (lambda o, i: o["total"].__itruediv__(np.float32(2)), "exchange.tiny.n2/total"),
        (lambda o, i: o["total"].__imul__(np.float32(-1)), "exchange.tiny.n2/total"),
    ],
    ids=["own-message-missing", "own-gradient-added", "mean", "sign"],
)
def test_the_exchange(change, says):
    assert first(after("gtc_exchange", change)) == "compression.gtc/" + says


def test_minus_zero_where_nothing_was_sent():
    """As tau * sign(total) * (|total| > tau) gives it."""

    def minus(outputs, inputs):
        values = outputs["values"]
        values[values == 0] = -0.0

    says = "compression.gtc/decode.index.empty/values"
    assert first(after("gtc_decode", minus)) == says


def no_owner_feedback(comm, gradient, residual, owned, *rest, right=onebit.allreduce):
    right(comm, gradient, residual, owned, *rest)
    owned.fill(0)


def scale_in_float32(x):
    return float(np.abs(x).cumsum(dtype=np.float32)[-1] / np.float32(x.size))


@pytest.mark.parametrize(
    "name, bug, says",
    [
        ("scale_of", lambda x: float(np.abs(x).max()), "encode.tiny/message"),
        ("scale_of", lambda x: float(np.sqrt(np.mean(x**2))), "encode.tiny/message"),
        ("scale_of", scale_in_float32, "encode.thousands/message"),
        ("allreduce", no_owner_feedback, "allreduce.n2/owned"),
    ],
    ids=["largest", "root-mean-square", "summed-in-float32", "no-feedback-at-the-owner"],
)
def test_one_bit(monkeypatch, name, bug, says):
    monkeypatch.setattr(onebit, name, bug)
    backend = only("onebit_encode", "onebit_allreduce")
    assert first(backend) == "compression.onebit/" + says


def encoded(found):
    """Return an encoder with other values and signs: found(rows) -> plus, low, high."""

    def encode(self, x, out):
        pairs, signs = np.empty((self.columns, 2), np.float32), np.empty(x.size, np.bool_)
        for some, place, shape in self._blocks:
            rows, plus = x[place].reshape(shape), signs[place].reshape(shape)
            plus[:], pairs[some, 0], pairs[some, 1] = found(rows.copy())
            rows -= np.where(plus, pairs[some, 1:], pairs[some, :1])
        out[: pairs.nbytes] = pairs.reshape(-1).view(np.uint8)
        out[pairs.nbytes :] = np.packbits(signs)

    return encode


def pooled(rows):
    """One value with two signs."""
    scale = np.abs(rows).mean(1)
    return rows >= 0, -scale, scale


def about_the_mean(rows):
    """The border is the mean, which CNTK can do, too."""
    mean = rows.mean(1)
    way = np.abs(rows - mean[:, None]).mean(1)
    return rows >= mean[:, None], mean - way, mean + way


@pytest.mark.parametrize(
    "owner, name, bug",
    [
        (columns, "_means", lambda rows, counts: rows.mean(1)),  # over the whole column
        (columns.Columns, "encode", encoded(pooled)),
        (columns.Columns, "encode", encoded(about_the_mean)),
        (cases.onebit, "unit_of", lambda shapes: unit_of([one[::-1] for one in shapes])),
    ],
    ids=["all-counted", "one-value", "about-the-mean", "rows-for-columns"],
)
def test_two_values_for_every_column(monkeypatch, owner, name, bug):
    monkeypatch.setattr(owner, name, bug)
    # "/message..." where the other ranks do not refuse what they get
    assert first(only("onebit_columns")).startswith("compression.onebit/columns.tiny.n2")


# -------------------------------------------------------- long vectors, many ranks, no messages


def short_indices(residual, gradient, tau, words, right=threshold.encode):
    """An index is kept in 16 bits."""
    return right(residual, gradient, tau, words) & np.uint32(0x1FFFF)


def small_counts(self, n, terms):
    self._count = np.zeros(n, np.int8)


def added(self, tau, out):
    """The messages are added as floats, one after the other."""
    out.fill(0)
    for place, count in enumerate(self._count.tolist()):
        for _ in range(abs(count)):
            out[place] += np.float32(np.copysign(tau, count))
    self.clear()


def short_places(self, residual, out, right=topk.Chunks.encode):
    """A place in a chunk is kept in 8 bits."""
    right(self, residual, out)
    out[1 : 2 * self.entries : 2] = 0


def test_places_of_8_bits(monkeypatch):
    monkeypatch.setattr(topk.Chunks, "encode", short_places)
    says = "compression.topk/exchange.long.n2"  # and no array: who reads it refuses it
    assert first(only("topk_exchange"), says) == says


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (threshold, "encode", short_indices, "sparse.index/words"),
        (threshold.Counts, "__init__", small_counts, "total.n130/total"),
        (threshold.Counts, "total", added, "total.n130/total"),
        (
            threshold,
            "encode",
            encode(
                beyond, lambda total, index, sent, g: less_sent(total, index, sent * 1.0000001, g)
            ),
            "encode.rough/residual_after",
        ),
    ],
    ids=["16-bit-indices", "8-bit-counts", "floats-added", "another-tau-subtracted"],
)
def test_what_small_vectors_and_few_ranks_do_not_show(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    pattern = [f"compression.gtc/{says.rpartition('/')[0]}"]
    assert first(only(*GTC), pattern) == "compression.gtc/" + says


def without(check):
    """Return a reader that does not check one thing."""
    right = wire.decode

    def read(message, n, tau=None):
        if check == "tau":
            return right(message, n)
        if check == "n" and message.size >= header.HEADER_BYTES:
            n = header.Header.read(message).n
        return right(message, n, tau)

    return read


def blind_rice(header, body, right=rice.read):
    """What is set where planes are filled up is not looked at."""
    changed = body.copy()
    changed[0] &= 0xF0
    return right(header, changed)


def all_accepted(outputs, inputs):
    outputs["accepted"][:] = 1


def any_places(chunks, message, right=topk.Chunks.decode):
    """Read a top-k message without looking whether its places rise."""
    places = message[: 2 * chunks.entries].view("<u2")
    if len(places) == chunks.entries:
        places[:] = [0, 1] * (chunks.entries // 2)
    return right(chunks, message)


def any_steps(chunks, message, right=topk.Chunks.decode):
    """Read one of two bits without looking what its powers of two are."""
    if chunks.two_bit and len(message) == chunks.message_bytes:
        message[2 * chunks.entries :][: 2 * chunks.chunks].view("<i2")[:] = 0
    return right(chunks, message)


@pytest.mark.parametrize(
    "owner, name, bug, says",
    [
        (wire, "decode", without("tau"), "gtc/accepted.index/accepted"),
        (wire, "decode", without("n"), "gtc/accepted.index/accepted"),
        (header.Header, "need", lambda self, right, body: None, "gtc/accepted.index"),
        (rice, "read", blind_rice, "gtc/accepted.rice/accepted"),
        (
            codes,
            "read",
            lambda head, body: np.zeros(head.entries),
            "gtc/accepted.two-bit/accepted",
        ),
        (onebit, "_scale", lambda m, n: float(m[:8].view("<f8")[0]), "onebit/accepted"),
        (topk.Chunks, "decode", any_places, "topk/accepted.float/accepted"),
        (topk.Chunks, "decode", any_steps, "topk/accepted.two-bit/accepted"),
    ],
    ids=[
        "any-tau",
        "any-n",
        "any-length",
        "rice-padding",
        "two-bit-codes",
        "one-bit",
        "places-that-fall",
        "any-power-of-two",
    ],
)
def test_messages_that_must_be_refused(monkeypatch, owner, name, bug, says):
    monkeypatch.setattr(owner, name, bug)
    backend = only("gtc_accepts", "onebit_accepts", "topk_accepts")
    assert first(backend, "compression.*/accepted*").startswith("compression." + says)


@pytest.mark.parametrize("name", ["gtc_accepts", "onebit_accepts", "topk_accepts"])
def test_a_backend_that_takes_everything_for_a_message(name):
    backend = after(name, all_accepted)
    assert first(backend, "compression.*/accepted*").endswith("/accepted")
