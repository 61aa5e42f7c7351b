"""The choice of `auto`: it follows its inputs, is visible, and is the fastest prediction."""

import pytest

from refimpl import collectives
from refimpl.collectives.auto import ASSUMED, CROSSOVER, Auto
from refimpl.collectives.cost import Link, Links


def test_on_one_node_the_measured_size_decides():
    auto = Auto(crossover={"allreduce": {2: 0, 4: 4000}})
    assert auto.choose("allreduce", 1000, (0,) * 4).name == "halving-doubling"
    assert auto.choose("allreduce", 1001, (0,) * 4).name == "ring"
    assert auto.choose("allreduce", 1001, (0,) * 4).why == "4004 bytes > 4000, measured on 4 ranks"
    assert auto.choose("allreduce", 500, (0,) * 7, itemsize=8).name == "halving-doubling"
    assert auto.choose("allreduce", 501, (0,) * 7, itemsize=8).name == "ring"
    assert auto.choose("allreduce", 1, (0,) * 3).name == "ring"
    assert auto.choose("allreduce", 10, (0,)) == ("ring", "nothing to send")


def test_predictions_are_of_bytes_not_of_elements():
    for itemsize in (4, 8):
        time = collectives.get("ring").cost("allreduce", 999, (0, 1, 1), itemsize).time(ASSUMED)
        why = Auto().choose("allreduce", 999, (0, 1, 1), itemsize).why
        assert f"predicted: ring {time:.3g} s, " in why


@pytest.mark.parametrize("operation", collectives.OPERATIONS)
@pytest.mark.parametrize("n", [0, 1000, 10**6])
def test_across_nodes_no_other_family_is_predicted_to_be_faster(operation, n):
    nodes = (0, 0, 0, 1, 1, 1)
    chosen = Auto().choose(operation, n, nodes).name
    best = collectives.get(chosen).cost(operation, n, nodes).time(ASSUMED)
    for name in ("ring", "halving-doubling", "hierarchical"):
        assert best <= collectives.get(name).cost(operation, n, nodes).time(ASSUMED)


def test_unequal_nodes_exclude_hierarchical_and_the_choice_says_so():
    name, why = Auto().choose("allgather", 10**6, (0, 0, 1))
    assert name != "hierarchical"
    assert "nodes of unequal size exclude hierarchical" in why


def test_slow_links_inside_the_node_can_make_the_flat_ring_the_choice():
    slow_inside = Links(intra=Link(1e-2, 1e-6), inter=Link(1e-6, 1e-10))
    many = tuple(rank // 2 for rank in range(16))
    assert Auto(links=ASSUMED).choose("allgather", 10**6, many).name == "hierarchical"
    assert Auto(links=slow_inside).choose("allgather", 10**6, many).name != "hierarchical"


def test_choices_are_kept_to_be_shown():
    auto = collectives.get("auto")
    choice = auto.choose("allreduce", 5, (0, 0))
    assert auto.chosen == {("allreduce", 5, 4, (0, 0)): choice}
    assert collectives.get("auto").chosen == {}


def test_table_covers_the_operations_that_have_a_choice():
    assert set(CROSSOVER) == {"allgather", "reduce_scatter", "allreduce"}
    assert all(2 in row for row in CROSSOVER.values())
