"""What each algorithm costs, as the tables say it, and what hierarchical gathers save."""

import numpy as np
import pytest
from families import Sent, addends, uneven
from loopback import spawn

from refimpl import collectives
from refimpl.collectives import chain, chunks, hierarchical
from refimpl.collectives.chunks import Call
from refimpl.support.errors import UserError

WORLDS = range(1, 9)


def cost_per_rank(name, operation, n, nodes):
    cost = collectives.get(name).cost(operation, n, nodes, itemsize=1)
    sent = [cost.sent_by(rank) for rank in range(len(nodes))]
    return [
        (s["intra"].messages + s["inter"].messages, s["intra"].bytes + s["inter"].bytes)
        for s in sent
    ]


@pytest.mark.parametrize("p", WORLDS)
def test_ring_costs_what_the_table_says(p):
    n = 24 * p
    part = n * (p - 1) // p
    assert cost_per_rank("ring", "allgather", n, (0,) * p) == [(p - 1, part)] * p
    assert cost_per_rank("ring", "reduce_scatter", n, (0,) * p) == [(p - 1, part)] * p
    assert cost_per_rank("ring", "allreduce", n, (0,) * p) == [(2 * (p - 1), 2 * part)] * p


@pytest.mark.parametrize("p, steps", [(1, 0), (2, 1), (4, 2), (8, 3), (16, 4)])
def test_halving_doubling_costs_what_the_table_says_for_powers_of_two(p, steps):
    n = 24 * p
    part = n * (p - 1) // p
    name = "halving-doubling"
    assert cost_per_rank(name, "allgather", n, (0,) * p) == [(steps, part)] * p
    assert cost_per_rank(name, "reduce_scatter", n, (0,) * p) == [(steps, part)] * p
    assert cost_per_rank(name, "allreduce", n, (0,) * p) == [(2 * steps, 2 * part)] * p


@pytest.mark.parametrize("p", range(1, 34))
def test_halving_sends_every_foreign_chunk_once_for_any_number_of_ranks(p):
    n, depth = 24 * p, (p - 1).bit_length()
    cost = collectives.get("halving-doubling").cost("reduce_scatter", n, (0,) * p, 1)
    assert len(cost.steps) == depth
    for rank in range(p):
        messages, nbytes = cost.sent_by(rank)["intra"]
        assert nbytes == n - 24
        assert messages in (depth - 1, depth)


@pytest.mark.parametrize("p", range(1, 34))
def test_tree_sends_one_message_per_edge_in_lg_p_steps(p):
    for operation in ("broadcast", "reduce"):
        cost = collectives.get("tree").cost(operation, 10, (0,) * p, root=p // 2)
        assert len(cost.steps) == (p - 1).bit_length()
        assert cost.total()["intra"] == (p - 1, 40 * (p - 1))


@pytest.mark.parametrize("k, n_nodes", [(2, 2), (2, 4), (4, 2), (3, 5), (1, 4), (4, 1)])
def test_hierarchical_allgather_brings_a_node_p_minus_k_chunks_and_the_ring_p_minus_1(k, n_nodes):
    p = k * n_nodes
    nodes, n = tuple(rank // k for rank in range(p)), 24 * p
    for operation in ("allgather", "reduce_scatter"):
        entering = [
            collectives.get(name).cost(operation, n, nodes, itemsize=1).entering(node=0).bytes
            for name in ("hierarchical", "ring")
        ]
        assert entering == [n * (p - k) // p, n * (p - 1) // p if n_nodes > 1 else 0]
        per_rank = cost_per_rank("hierarchical", operation, n, nodes)
        assert per_rank == [(n_nodes - 1 + n_nodes * (k - 1), n * (p - 1) // p)] * p
    sent = collectives.get("hierarchical").cost("allreduce", n, nodes, itemsize=1).sent_by(p - 1)
    assert sent["intra"] == (2 * (k - 1), 2 * n * (k - 1) // k)
    assert sent["inter"] == (2 * (n_nodes - 1), 2 * n * (n_nodes - 1) // (n_nodes * k))


def test_what_cannot_be_done_is_refused_in_words_that_help():
    def body(comm):
        with pytest.raises(UserError, match="collectives tree have no all-gather: use ring, halv"):
            collectives.get("tree").allgather(comm, np.zeros(4))
        with pytest.raises(UserError, match="collectives tree have no reduce-scatter: use ring"):
            collectives.get("tree").reduce_scatter(comm, np.zeros(4))
        with pytest.raises(UserError, match="of these 5 ranks the nodes hold 2, 2, 1: choose a"):
            collectives.get("hierarchical").allreduce(comm, np.zeros(4))

    spawn((0, 0, 1, 1, 2), body)


def test_native_states_neither_cost_nor_order():
    native = collectives.get("native")
    assert all(native.has(operation) for operation in collectives.OPERATIONS)
    assert native.refuses("allreduce", (0, 0, 1)) is None
    with pytest.raises(UserError, match="collectives native state no cost for allreduce"):
        native.cost("allreduce", 4, (0, 0))
    with pytest.raises(UserError, match="native state no order of summation for allreduce"):
        native.orders("allreduce", Call.of(4, (0, 0)))


def test_only_the_ring_can_be_gathered_ahead():
    assert [name for name in collectives.NAMES if collectives.get(name).ahead] == ["ring"]


@pytest.mark.parametrize("p", WORLDS)
def test_an_allgather_ahead_is_the_rings_with_other_messages_between_its_steps(p):
    ring = collectives.get("ring")

    def body(comm):
        for n in (0, 1, p, 101):
            x, want = np.zeros(n), np.zeros(n)
            own = chunks.slices(x, p)[comm.rank]
            x[own] = want[own] = addends(p, n, float)[comm.rank][own]
            comm.ledger.clear()
            steps = 0
            for _ in ring.ahead(comm, x):
                steps += 1
                between = np.full(3, comm.rank)
                ring.allreduce(comm, between)
                assert (between == sum(range(p))).all()
            gathered = ring.cost("allgather", n, comm.nodes, 8).sent_by(comm.rank)["intra"]
            summed = ring.cost("allreduce", 3, comm.nodes, 8).sent_by(comm.rank)["intra"]
            assert comm.ledger.total() == gathered + tuple(steps * count for count in summed)
            assert steps == p - 1
            ring.allgather(comm, want)
            assert x.tobytes() == want.tobytes()

    spawn((0,) * p, body)


# --------------------------------------------------------- hierarchical: the plain and the fast


EVEN = [(0,), (0, 1), (0, 0, 1, 1), (1, 0, 1, 0), (0, 0, 0, 1, 1, 1), (0, 1, 2, 2, 1, 0), (0,) * 4]


@pytest.mark.parametrize("nodes", EVEN, ids=str)
@pytest.mark.parametrize("operation", ["allgather", "reduce_scatter"])
def test_plain_and_fast_form_give_the_same_bits_with_the_same_messages(operation, nodes):
    p = len(nodes)
    plain, fast = getattr(hierarchical, f"plain_{operation}"), getattr(hierarchical, operation)

    def outcome(algorithm, n, offsets):
        """Return what every rank ends with, and what it sends to whom, in any order."""

        def body(comm):
            x = addends(p, n, np.float32)[comm.rank]
            own = chunks.slices(x, p, offsets)[comm.rank]
            with comm.events.listen(sent := Sent()):
                algorithm(comm, x, offsets)
            return (x if operation == "allgather" else x[own]).tobytes(), sorted(sent.messages)

        return spawn(nodes, body)

    for n in (0, 1, p + 1, 101):
        for offsets in (None, uneven(n, p)):
            assert outcome(plain, n, offsets) == outcome(fast, n, offsets)


def test_the_plain_forms_refuse_unequal_nodes():
    def body(comm):
        for plain in hierarchical.plain_allgather, hierarchical.plain_reduce_scatter:
            with pytest.raises(UserError, match="equally many ranks on each node"):
                plain(comm, np.zeros(6))

    spawn((0, 0, 1), body)


# ----------------------------------------------------------------- the shortest, and the longest


@pytest.mark.parametrize("p", range(1, 34))
def test_doubling_and_bruck_take_as_few_steps_as_there_can_be(p):
    steps, power = (p - 1).bit_length(), 1 << (p.bit_length() - 1)
    doubling = collectives.get("recursive-doubling").cost("allreduce", 10, (0,) * p)
    assert len(doubling.steps) == (p.bit_length() - 1) + 2 * (p > power)
    assert doubling.total()["intra"].messages == power * (p.bit_length() - 1) + 2 * (p - power)
    assert cost_per_rank("bruck", "allgather", 24 * p, (0,) * p) == [(steps, 24 * (p - 1))] * p


@pytest.mark.parametrize("p", range(2, 34))
def test_a_broadcast_by_chunks_sends_about_two_vectors_where_the_tree_sends_lg_p(p):
    cost = collectives.get("scatter-allgather").cost("broadcast", 24 * p, (0,) * p, 1, root=p // 2)
    most = max(cost.sent_by(rank)["intra"].bytes for rank in range(p))
    assert most == 2 * 24 * (p - 1)
    assert len(cost.steps) >= (p - 1).bit_length()
    assert cost.total()["intra"].messages == p - 1 + p * (p - 1)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_a_chain_passes_segments_on_while_the_next_arrive(p, monkeypatch):
    n, many, root = 7, 4, p // 2
    monkeypatch.setattr(chain, "SEGMENT", 2)
    cost = collectives.get("chain").cost("broadcast", n, (0,) * p, root=root)
    assert len(cost.steps) == (many + p - 2 if p > 1 else 0)

    def body(comm):
        x = np.arange(n) if comm.rank == root else np.zeros(n, int)
        with comm.events.listen(sent := Sent()):
            collectives.get("chain").broadcast(comm, x, root)
        assert x.tolist() == list(range(n))
        return len(sent.messages), comm.ledger.total().bytes

    stated = [cost.sent_by(rank)["intra"] for rank in range(p)]
    assert spawn((0,) * p, body) == [(count.messages, 2 * count.bytes) for count in stated]
    assert stated[root].messages == (many if p > 1 else 0)


def test_among_a_power_of_two_doubling_has_the_trees_bits():
    def body(comm):
        mine = addends(comm.size, 101, np.float32)[comm.rank]
        other = mine.copy()
        collectives.get("recursive-doubling").allreduce(comm, mine)
        collectives.get("tree").allreduce(comm, other)
        return mine.tobytes(), mine.tobytes() == other.tobytes()

    results = spawn((0,) * 8, body)
    assert results == [(results[0][0], True)] * 8
