"""Every algorithm gives the documented sum to the last bit, and sends what its cost says.

Ranks are threads here (`loopback`), so that many world sizes, lengths and nodes can be tried.
Inputs are a function of (seed, rank): every rank computes everybody's, and with that the
expected result, alone.
"""

import numpy as np
import pytest
from loopback import spawn

from refimpl import collectives
from refimpl.collectives import chunks, halving_doubling, hierarchical, order, ring, tree
from refimpl.support.errors import UserError

WORLDS = range(1, 9)
DTYPES = [np.float32, np.float64, np.int64]
EXPLICIT = ["ring", "halving-doubling", "tree", "hierarchical"]
SCATTERING = ["ring", "halving-doubling", "hierarchical"]


def lengths(p):
    return sorted({0, 1, max(p - 1, 0), p, p + 1, 101})


def equal_nodes(p):
    """All nodes of k ranks, and two nodes whose ranks are not neighbours."""
    found = [tuple(rank // k for rank in range(p)) for k in range(1, p + 1) if p % k == 0]
    return found + ([(1, 0) * (p // 2)] if p % 2 == 0 else [])


def placements(name, p):
    """Nodes to try: the order of summation depends on them for hierarchical alone."""
    return equal_nodes(p) if name == "hierarchical" else [(0,) * p]


def uneven(n, p):
    """Cut points of chunks of very unequal length, some of them empty."""
    inner = np.random.default_rng([n, p]).integers(0, n + 1, p - 1)
    return [0, *np.sort(inner).tolist(), n]


def cuts(n, p):
    return [None, uneven(n, p)]


def addend(rank, n, dtype):
    """A vector whose sum over ranks depends on the order of its terms."""
    rng = np.random.default_rng([11, rank, n])
    if np.issubdtype(dtype, np.integer):
        return rng.integers(-(1 << 60), 1 << 60, n).astype(dtype)
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-4, 5, n)).astype(dtype)


def addends(p, n, dtype):
    return [addend(rank, n, dtype) for rank in range(p)]


def chunk_order(name, nodes, chunk):
    p = len(nodes)
    return {
        "ring": lambda: ring.order(p, chunk),
        "halving-doubling": lambda: halving_doubling.order(p, chunk),
        "tree": lambda: tree.order(p),
        "hierarchical": lambda: hierarchical.order(nodes, chunk),
    }[name]()


def expected_sum(name, nodes, vectors):
    """The all-reduce of the vectors, computed from the documented order alone."""
    p, n = len(nodes), vectors[0].size
    total = np.empty_like(vectors[0])
    if name == "hierarchical":
        place = hierarchical.grid(nodes)
        for local, outer in enumerate(chunks.slices(total, len(place[0]))):
            for node, inner in enumerate(chunks.slices(total[outer], len(place))):
                part = slice(outer.start + inner.start, outer.start + inner.stop)
                how = hierarchical.allreduce_order(nodes, local, node)
                total[part] = order.add_up(how, [v[part] for v in vectors])
        return total
    for chunk, part in enumerate(chunks.slices(np.empty(n), p)):
        how = chunk_order(name, nodes, chunk)
        total[part] = order.add_up(how, [v[part] for v in vectors])
    return total


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", EXPLICIT)
def test_allreduce_is_the_documented_sum_to_the_last_bit(name, p):
    def body(comm):
        for dtype in DTYPES:
            for n in lengths(p):
                vectors = addends(p, n, dtype)
                x = vectors[comm.rank].copy()
                collectives.get(name).allreduce(comm, x)
                want = expected_sum(name, comm.nodes, vectors)
                np.testing.assert_array_equal(x, want, strict=True)

    for nodes in placements(name, p):
        spawn(nodes, body)


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", SCATTERING)
def test_own_chunk_is_the_documented_sum_to_the_last_bit(name, p):
    def body(comm):
        how = chunk_order(name, comm.nodes, comm.rank)
        for dtype in DTYPES:
            for n in lengths(p):
                for offsets in cuts(n, p):
                    own = chunks.slices(np.empty(n), p, offsets)[comm.rank]
                    vectors = addends(p, n, dtype)
                    want = order.add_up(how, [v[own] for v in vectors])
                    x = vectors[comm.rank].copy()
                    got = collectives.get(name).reduce_scatter(comm, x, offsets)
                    np.testing.assert_array_equal(got, want, strict=True)
                    assert got.base is x
                    assert np.array_equal(x[own], want)

    for nodes in placements(name, p):
        spawn(nodes, body)


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", SCATTERING)
def test_everybody_gets_every_chunk_of_an_allgather(name, p):
    def body(comm):
        for dtype in (np.uint8, np.float16, np.int64, "i4,f8"):
            for n in lengths(p):
                for offsets in cuts(n, p):
                    want = np.random.default_rng(n).bytes(n * np.dtype(dtype).itemsize)
                    x = np.zeros(n, dtype)
                    own = chunks.slices(x, p, offsets)[comm.rank]
                    x[own] = np.frombuffer(want, dtype)[own]
                    collectives.get(name).allgather(comm, x, offsets)
                    assert x.tobytes() == want

    for nodes in placements(name, p):
        spawn(nodes, body)


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", ["tree", "hierarchical"])
def test_broadcast_gives_everybody_the_roots_vector(name, p):
    def body(comm):
        for root in range(p):
            for n in (0, 1, 101):
                x = addend(comm.rank, n, np.float32)
                collectives.get(name).broadcast(comm, x, root)
                np.testing.assert_array_equal(x, addend(root, n, np.float32), strict=True)

    for nodes in placements(name, p):
        spawn(nodes, body)


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", ["tree", "hierarchical"])
def test_root_of_a_reduce_gets_the_documented_sum_to_the_last_bit(name, p):
    def body(comm):
        for root in range(p):
            if name == "hierarchical":
                how = hierarchical.reduce_order(comm.nodes, root)
            else:
                how = tree.order(p, root)
            for n in (0, 1, 101):
                vectors = addends(p, n, np.float32)
                x = vectors[comm.rank].copy()
                collectives.get(name).reduce(comm, x, root)
                if comm.rank == root:
                    np.testing.assert_array_equal(x, order.add_up(how, vectors), strict=True)

    for nodes in placements(name, p):
        spawn(nodes, body)


def run(family, operation, comm, x, root=0, offsets=None):
    keywords = {} if offsets is None else {"offsets": offsets}
    if operation in ("broadcast", "reduce"):
        keywords["root"] = root
    getattr(family, operation)(comm, x, **keywords)


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", [*EXPLICIT, "auto"])
def test_ledger_equals_the_cost_exactly(name, p):
    family = collectives.get(name)

    def body(comm):
        for operation in filter(family.has, collectives.OPERATIONS):
            rooted = operation in ("broadcast", "reduce")
            cut = operation in ("allgather", "reduce_scatter")
            for n in lengths(p):
                for root in {0, p // 2, p - 1} if rooted else {0}:
                    for offsets in cuts(n, p) if cut else [None]:
                        comm.ledger.clear()
                        run(family, operation, comm, np.zeros(n, np.float64), root, offsets)
                        cost = family.cost(operation, n, comm.nodes, 8, root, offsets)
                        assert comm.ledger.totals() == cost.sent_by(comm.rank)

    for nodes in equal_nodes(p):
        spawn(nodes, body)
    if name != "hierarchical" and p > 2:
        spawn((0,) * (p - 1) + (1,), body)


@pytest.mark.parametrize("p", WORLDS)
def test_total_is_the_sum_over_ranks_and_what_enters_the_nodes(p):
    for nodes in equal_nodes(p):
        for name in EXPLICIT:
            family = collectives.get(name)
            for operation in filter(family.has, collectives.OPERATIONS):
                cost = family.cost(operation, 101, nodes, root=p - 1)
                ranks = [cost.sent_by(rank) for rank in range(p)]
                total = cost.total()
                for link in ("intra", "inter"):
                    assert sum(r[link].bytes for r in ranks) == total[link].bytes
                    assert sum(r[link].messages for r in ranks) == total[link].messages
                enter = sum(cost.entering(node).bytes for node in set(nodes))
                assert enter == total["inter"].bytes


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


def test_unequal_nodes_are_refused_before_any_message():
    def body(comm):
        family = collectives.get("hierarchical")
        for operation in collectives.OPERATIONS:
            with pytest.raises(UserError, match="of these 5 ranks the nodes hold 2, 2, 1: choose"):
                run(family, operation, comm, np.zeros(10))
            with pytest.raises(UserError, match="equally many ranks on each node"):
                family.cost(operation, 10, comm.nodes)
        assert comm.ledger.counts == {}

    spawn((0, 0, 1, 1, 2), body)


def test_what_tree_does_not_have_is_refused_in_words():
    for operation, word in ("allgather", "all-gather"), ("reduce_scatter", "reduce-scatter"):
        with pytest.raises(UserError, match=f"collectives tree have no {word}: use ring"):
            run(collectives.get("tree"), operation, None, np.zeros(4))


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="no collectives 'rung': choose one of auto, halving-doub"):
        collectives.get("rung")


def test_native_states_no_cost():
    with pytest.raises(UserError, match="native state no cost for allreduce"):
        collectives.get("native").cost("allreduce", 4, (0, 0))


def test_same_call_needs_no_new_work_space():
    def body(comm):
        x = np.zeros(101, np.float32)
        for name in EXPLICIT:
            collectives.get(name).allreduce(comm, x)
        before = comm.scratch(1, np.uint8).__array_interface__["data"]
        for name in EXPLICIT:
            collectives.get(name).allreduce(comm, x)
        assert comm.scratch(1, np.uint8).__array_interface__["data"] == before

    spawn((0, 0, 1, 1), body)
