"""The choice of `auto`: it follows its inputs, is visible, and is the fastest prediction."""

import pytest

from refimpl import collectives
from refimpl.collectives.auto import ASSUMED, CLOSE, Auto
from refimpl.collectives.cost import Link, Links
from refimpl.collectives.families import EXPLICIT


@pytest.mark.parametrize("p", [2, 3, 4, 7])
def test_short_sums_take_one_phase_and_long_ones_send_no_more_than_they_must(p):
    auto, nodes = Auto(), (0,) * p
    assert auto.choose("allreduce", 10, nodes).name == "recursive-doubling"
    assert auto.choose("allreduce", 10**8, nodes).name in ("ring", "halving-doubling")
    assert auto.choose("allgather", 10**8, nodes).name in ("ring", "halving-doubling")
    assert auto.choose("alltoall", 10, nodes).name == "pairwise"
    assert auto.choose("allreduce", 10, (0,)) == ("ring", "nothing to send")


def test_of_as_many_bytes_what_is_added_comes_in_short_messages_and_the_rest_in_few_steps():
    """Both send every chunk once: the ring in 7 steps, halving and doubling in 3."""
    for operation, name in (("reduce_scatter", "ring"), ("allgather", "halving-doubling")):
        assert Auto().choose(operation, 10**8, (0,) * 8).name == name


def test_long_broadcasts_are_cut():
    assert Auto().choose("broadcast", 10, (0,) * 8).name == "tree"
    assert Auto().choose("broadcast", 10**7, (0,) * 2).name == "tree"  # the same time, fewer bytes
    assert Auto().choose("broadcast", 10**7, (0,) * 8).name in ("chain", "scatter-allgather")


def test_predictions_are_of_bytes_not_of_elements():
    for itemsize in (4, 8):
        time = collectives.get("ring").cost("allreduce", 999, (0, 1, 1), itemsize).time(ASSUMED)
        why = Auto().choose("allreduce", 999, (0, 1, 1), itemsize).why
        assert f"predicted: ring {time:.3g} s, " in why


@pytest.mark.parametrize("operation", collectives.OPERATIONS)
@pytest.mark.parametrize("n", [0, 1000, 10**6])
@pytest.mark.parametrize("nodes", [(0, 0, 0, 1, 1, 1), (0, 0, 0)], ids=str)
def test_no_other_family_is_predicted_to_be_faster(operation, n, nodes):
    chosen = Auto().choose(operation, n, nodes).name
    best = collectives.get(chosen).cost(operation, n, nodes).time(ASSUMED)
    for family in filter(lambda family: family.has(operation), EXPLICIT):
        assert best <= CLOSE * family.cost(operation, n, nodes).time(ASSUMED)


def test_unequal_nodes_exclude_hierarchical_and_the_choice_says_so():
    name, why = Auto().choose("allgather", 10**6, (0, 0, 1))
    assert name != "hierarchical"
    assert "nodes of unequal size exclude hierarchical" in why


def test_slow_links_inside_the_node_can_make_the_flat_ring_the_choice():
    slow_inside = Links(intra=Link(1e-2, 1e-6), inter=Link(1e-6, 1e-10))
    fast_inside = Links(intra=Link(2e-6, 2e-10), inter=Link(3e-5, 8e-10))
    many = tuple(rank // 4 for rank in range(16))
    assert Auto(links=fast_inside).choose("allgather", 10**6, many).name == "hierarchical"
    assert Auto(links=slow_inside).choose("allgather", 10**6, many).name != "hierarchical"


def test_choices_are_kept_to_be_shown():
    auto = collectives.get("auto")
    choice = auto.choose("allreduce", 5, (0, 0))
    assert auto.chosen == {("allreduce", 5, 4, (0, 0)): choice}
    assert collectives.get("auto").chosen == {}


def test_where_ranks_share_cores_the_work_of_all_counts_and_fewer_messages_win():
    four = Links(intra=Link(1e-6, 1e-9), inter=Link(1e-6, 1e-9), gamma=1e-9)
    two = four._replace(cores=0.5)
    assert Auto(four).choose("allreduce", 100, (0,) * 4).name == "recursive-doubling"
    doubling, tree = (
        collectives.get(name).cost("allreduce", 10**4, (0,) * 4)
        for name in ("recursive-doubling", "tree")
    )
    assert doubling.time(four) < tree.time(four) and tree.time(two) < doubling.time(two)
    ring = collectives.get("ring").cost("allgather", 4000, (0,) * 4)
    assert ring.time(two) == pytest.approx(2 * ring.time(four))
    tree = collectives.get("tree").cost("reduce", 1000, (0,) * 4)
    assert tree.time(two) == pytest.approx(tree.time(four))  # half of the ranks rest anyway
