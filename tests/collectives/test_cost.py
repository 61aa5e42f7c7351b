"""Schedules are the loops' steps; one that is written once counts as often as it is taken."""

from itertools import chain, zip_longest

import numpy as np
import pytest

from refimpl import collectives
from refimpl.collectives import ring
from refimpl.collectives.chunks import offsets
from refimpl.collectives.cost import Cost, Link, Links, Step, side_by_side

LINKS = Links(intra=Link(3e-6, 1e-9), inter=Link(1e-4, 7e-9), gamma=2e-10)


def messages(step):
    """The messages of a step, in any order."""
    return sorted(zip(*(column.tolist() for column in step[:4]), strict=True))


def every(steps):
    """The messages of every single step."""
    return [messages(step) for step in steps for _ in range(step.times)]


def turns(places, sizes, sent, adds):
    """The steps of a ring, one by one, as the loop takes them: (source, dest, elements, adds)."""
    p = len(places)
    return [
        [(places[r], places[(r + 1) % p], sizes[sent(p, r, step)], adds) for r in range(p)]
        for step in range(p - 1)
    ]


def together(rings):
    """The steps of rings that turn at the same time."""
    return [sorted(chain(*steps)) for steps in zip_longest(*rings, fillvalue=[])]


def full(name, operation, n, place):
    """Every step, written out from the loops' index functions."""
    sizes = np.diff(offsets(n, sum(map(len, place)))).tolist()
    adds = operation == "reduce_scatter"
    sent = ring.reduced if adds else ring.gathered
    if name == "ring":
        return together([turns([*chain(*place)], sizes, sent, adds)])
    peers = [[members[j] for members in place] for j in range(len(place[0]))]
    across = [turns(column, [sizes[r] for r in column], sent, adds) for column in peers]
    within = [
        turns(members, [sizes[r] for r in owners], sent, adds)
        for members in place
        for owners in place
    ]
    stages = [together(across), together(within)]
    return [step for stage in (stages[::-1] if adds else stages) for step in stage]


@pytest.mark.parametrize("n_nodes, k", [(1, 1), (1, 6), (6, 1), (2, 2), (2, 3), (3, 2), (4, 8)])
@pytest.mark.parametrize("operation", ["allgather", "reduce_scatter"])
@pytest.mark.parametrize("name", ["ring", "hierarchical"])
def test_schedules_of_rings_are_every_step_of_the_loops(name, operation, n_nodes, k):
    p = n_nodes * k
    place = [list(range(i * k, (i + 1) * k)) for i in range(n_nodes)]
    nodes = tuple(rank // k for rank in range(p))
    for n in (0, p, 24 * p, 24 * p + 1, p - 1):
        steps = collectives.get(name).cost(operation, n, nodes).steps
        assert every(steps) == full(name, operation, n, place)


@pytest.mark.parametrize("p, k", [(1, 1), (2, 1), (8, 2), (64, 8), (512, 8)])
def test_equal_steps_are_written_once(p, k):
    nodes = tuple(rank // k for rank in range(p))
    for name, kinds in ("ring", 1), ("hierarchical", (p > k) + (k > 1)):
        for operation, times in ("allgather", 1), ("reduce_scatter", 1), ("allreduce", 2):
            steps = collectives.get(name).cost(operation, 6 * p, nodes).steps
            assert len(steps) == times * min(kinds, p - 1)
            taken = p - 1 if name == "ring" else p // k + k - 2
            assert sum(step.times for step in steps) == times * taken


@pytest.mark.parametrize("name", ["ring", "hierarchical", "halving-doubling", "tree"])
def test_a_step_taken_often_costs_as_much_as_its_copies(name):
    nodes = (0, 0, 0, 1, 1, 1)
    cost = collectives.get(name).cost("allreduce", 60, nodes, itemsize=4)
    steps = [step._replace(times=1) for step in cost.steps for _ in range(step.times)]
    copies = Cost(steps, nodes, 4)
    assert len(copies.steps) >= len(cost.steps)
    assert copies.time(LINKS) == pytest.approx(cost.time(LINKS), rel=1e-14)
    assert copies.total() == cost.total()
    assert all(copies.sent_by(rank) == cost.sent_by(rank) for rank in range(6))
    assert all(copies.entering(node) == cost.entering(node) for node in (0, 1))


def test_time_of_a_ring_is_the_familiar_formula():
    p, n = 6, 600
    cost = collectives.get("ring").cost("allreduce", n, (0,) * p, itemsize=8)
    size, (alpha, beta) = 8 * n, LINKS.intra
    moved = size * (p - 1) / p
    assert cost.time(LINKS) == pytest.approx(
        2 * (p - 1) * alpha + 2 * moved * beta + moved * LINKS.gamma
    )


def test_a_node_shares_its_link_and_a_rank_sends_one_message_after_the_other():
    inside = Cost([Step.of([0, 0, 1], [1, 2, 2], [5, 7, 9])], (0, 0, 0), itemsize=2)
    assert inside.time(LINKS) == pytest.approx(2 * 3e-6 + 2 * 16 * 1e-9)  # into rank 2
    outward = Cost([Step.of([0, 0], [1, 2], [5, 7])], (0, 0, 0), itemsize=2)
    assert outward.time(LINKS) == pytest.approx(2 * 3e-6 + 2 * 12 * 1e-9)
    leaving = Cost([Step.of([0, 1, 0], [2, 3, 1], [5, 7, 1])], (0, 0, 1, 2), itemsize=2)
    assert leaving.time(LINKS) == pytest.approx(1e-4 + 2 * 12 * 7e-9)
    entering = Cost(
        [Step.of([0, 1], [2, 3], [5, 7], adds=[True, False])], (0, 1, 2, 2), itemsize=2
    )
    assert entering.time(LINKS) == pytest.approx(1e-4 + 2 * 12 * 7e-9 + 10 * 2e-10)
    assert Cost([], (0,), itemsize=2).time(LINKS) == 0


# ------------------------------------------------------------------------- many groups at once


def groups_of(n, p, columns):
    table = np.arange(n).reshape(-1, p)
    return (table.T if columns else table).tolist()


@pytest.mark.parametrize("columns", [False, True], ids=["partition", "replication"])
@pytest.mark.parametrize("n, p, k", [(8, 2, 4), (8, 4, 2), (12, 3, 4), (12, 6, 4), (16, 16, 4)])
@pytest.mark.parametrize("name", ["ring", "halving-doubling", "tree", "hierarchical", "auto"])
def test_groups_take_their_steps_at_the_same_time(name, n, p, k, columns):
    nodes, groups = tuple(rank // k for rank in range(n)), groups_of(n, p, columns)
    family, elements = collectives.get(name), 5 * p + 1
    where = [tuple(nodes[rank] for rank in group) for group in groups]
    if any(family.refuses("allreduce", nodes_of) for nodes_of in where):
        pytest.skip("refused")
    cost = family.cost_of_groups("allreduce", elements, groups, nodes, itemsize=8)
    alone = [family.cost("allreduce", elements, nodes_of, itemsize=8) for nodes_of in where]
    want = [
        every(
            Step.of(np.take(group, step.source), np.take(group, step.dest), *step[2:])
            for step in one.steps
        )
        for group, one in zip(groups, alone, strict=True)
    ]
    assert every(cost.steps) == together(want)
    for number, group in enumerate(groups):
        for member, rank in enumerate(group):
            assert cost.sent_by(rank) == alone[number].sent_by(member)
    assert cost.time(LINKS) >= max(one.time(LINKS) for one in alone) * (1 - 1e-12)


def test_groups_that_share_a_link_wait_for_each_other():
    ring = collectives.get("ring")
    columns = groups_of(8, 2, columns=True)  # 2 groups of 4, on 4 nodes of 2
    nodes = tuple(rank // 2 for rank in range(8))
    shared = ring.cost_of_groups("allgather", 4000, columns, nodes, itemsize=1)
    assert shared.time(LINKS) == pytest.approx(3 * (1e-4 + 2 * 1000 * 7e-9))
    alone = ring.cost_of_groups("allgather", 4000, columns[:1], nodes, itemsize=1)
    assert alone.time(LINKS) == pytest.approx(3 * (1e-4 + 1000 * 7e-9))


def test_nodes_are_taken_in_the_order_of_their_numbers():
    nodes, family = (2, 1, 0, 2), collectives.get("hierarchical")
    alone = family.cost("allgather", 10, nodes[:3]).steps
    assert every(family.cost_of_groups("allgather", 10, [(0, 1, 2)], nodes).steps) == every(alone)


def test_groups_that_lie_alike_are_worked_out_once(monkeypatch):
    asked, ring = [], collectives.get("ring")
    cost = type(ring).cost
    monkeypatch.setattr(
        type(ring), "cost", lambda self, *a, **k: asked.append(a) or cost(self, *a, **k)
    )
    ring.cost_of_groups("allgather", 64, groups_of(64, 8, False), [r // 4 for r in range(64)])
    assert len(asked) == 1


def test_a_step_backwards_is_taken_as_often():
    step = Step.of([0, 1], [1, 2], [5, 7], adds=True, times=3)
    assert every([step.backwards()]) == [[(1, 0, 5, False), (2, 1, 7, False)]] * 3
    assert every([step.backwards(adds=True)])[0] == [(1, 0, 5, True), (2, 1, 7, True)]


def test_schedules_of_different_length_end_one_after_the_other():
    long, short = [Step.of(0, 1, 5, times=3)], [Step.of(2, 3, 7, adds=True)]
    joined = side_by_side([long, short])
    assert every(joined) == [[(0, 1, 5, False), (2, 3, 7, True)]] + [[(0, 1, 5, False)]] * 2
    assert side_by_side([long, long])[0].times == 3
