"""Orders of summation, written out by hand: nobody's loop is asked."""

import pytest
from families import add_up

from refimpl import collectives
from refimpl.collectives import halving_doubling, ring, tree
from refimpl.collectives.chunks import Call
from refimpl.collectives.order import formula


@pytest.mark.parametrize(
    "p, chunk, text",
    [(1, 0, "0"), (2, 0, "1 + 0"), (4, 0, "1 + 2 + 3 + 0"), (4, 3, "0 + 1 + 2 + 3")],
)
def test_ring_adds_from_the_rank_after_the_owner_round_to_it(p, chunk, text):
    assert formula(ring.order(p, chunk)) == text


@pytest.mark.parametrize(
    "p, chunk, text",
    [
        (4, 0, "(0 + 2) + (1 + 3)"),
        (4, 3, "(3 + 1) + (2 + 0)"),
        (3, 0, "0 + 2 + 1"),
        (3, 2, "2 + 0 + 1"),
        (5, 4, "(4 + 1 + 2) + (3 + 0)"),
        (6, 5, "((5 + 2) + (3 + 0)) + (4 + 1)"),
    ],
)
def test_halving_adds_partners_first_and_the_rank_without_one_after_the_partner(p, chunk, text):
    assert formula(halving_doubling.order(p, chunk)) == text


@pytest.mark.parametrize(
    "p, root, text",
    [
        (3, 0, "0 + 1 + 2"),
        (4, 1, "(1 + 2) + (3 + 0)"),
        (7, 0, "((0 + 1) + (2 + 3)) + (4 + 5 + 6)"),
    ],
)
def test_tree_adds_near_children_first(p, root, text):
    assert formula(tree.order(p, root)) == text


def test_hierarchical_adds_inside_the_nodes_first():
    nodes = (0, 0, 0, 1, 1, 1)
    family = collectives.get("hierarchical")
    want = {
        "reduce_scatter": ["(4 + 5 + 3) + (1 + 2 + 0)", "(5 + 3 + 4) + (2 + 0 + 1)"],
        "allreduce": ["(4 + 5 + 3) + (1 + 2 + 0)", "(1 + 2 + 0) + (4 + 5 + 3)"],
        "reduce": ["(4 + 5 + 3) + (1 + 2 + 0)"],
    }
    for operation, formulas in want.items():
        orders = family.orders(operation, Call.of(6, nodes, root=4 * (operation == "reduce")))
        assert [formula(order) for _, order in orders][:2] == formulas


def test_order_of_a_float_sum_decides_its_bits():
    assert add_up(((0, 1), 2), [1e17, -1e17, 1.0]) == 1.0
    assert add_up((0, (1, 2)), [1e17, -1e17, 1.0]) == 0.0


def test_what_enters_a_node_is_not_what_leaves_it():
    cost = collectives.get("tree").cost("broadcast", 10, (0, 0, 1, 1), itemsize=1, root=0)
    assert cost.entering(node=0) == (0, 0)
    assert cost.entering(node=1) == (1, 10)
