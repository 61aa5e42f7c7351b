"""The state of a run: names and placements; shards cut and joined for any partition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import spawn
from rows import EVERY, FEW, pieces
from tiny import Bare, trained

from refimpl import nn
from refimpl.state import tree
from refimpl.state.tree import PLACEMENTS, Leaf, recut

SIZES = [
    [],
    [Bare("empty")],
    [Bare("none", (0, 3))],
    [Bare("one", (1,))],
    [Bare("a", (2, 3), (3,)), Bare("none", (0,)), Bare("b", (1,)), Bare("c", (4, 5), (5,))],
]


@pytest.mark.parametrize("p", range(1, 10))
@pytest.mark.parametrize("units", SIZES)
def test_cutting_can_be_undone_and_fills_up_with_zeros(units, p):
    layout, whole = nn.Layout(units, p), nn.Layout(units)
    vector = np.arange(1, layout.size + 1, dtype=np.float32)
    shards = [recut(layout, rank, whole, [vector]) for rank in range(p)]
    assert all(shard.shape == (layout.shard,) for shard in shards)
    assert sum(map(np.count_nonzero, shards)) == layout.size
    np.testing.assert_array_equal(recut(whole, 0, layout, shards), vector, strict=True)


def test_the_picture_of_the_layout_is_right():
    units = [Bare("a", (5,)), Bare("b", (2,))]

    def shards(p):
        layout, whole = nn.Layout(units, p), [np.arange(1, 8)]
        return [recut(layout, rank, nn.Layout(units), whole).tolist() for rank in range(p)]

    assert shards(1) == [[1, 2, 3, 4, 5, 6, 7]]
    assert shards(2) == [[1, 2, 3, 6], [4, 5, 0, 7]]
    assert shards(3) == [[1, 2, 6], [3, 4, 7], [5, 0, 0]]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 17), st.integers(1, 17))
def test_any_layout_can_be_cut_again_for_another_partition(sizes, p, q):
    units = [Bare(f"u{i}", (size,)) for i, size in enumerate(sizes)]
    whole, one, other = nn.Layout(units), nn.Layout(units, p), nn.Layout(units, q)
    vector = np.arange(1, one.size + 1, dtype=np.float64)
    shards = [recut(one, rank, whole, [vector]) for rank in range(p)]
    moved = [recut(other, rank, one, shards) for rank in range(q)]
    np.testing.assert_array_equal(recut(whole, 0, other, moved), vector, strict=True)


def test_branches_are_taken_apart_as_they_were_put_together():
    one, two = {"tau": Leaf(8.0), "residual": Leaf(np.ones(2), "own")}, {"step": Leaf(3)}
    whole = {**tree.under("gradient", one), **tree.under("gradients", two)}
    assert tree.branch(whole, "gradient") == one
    assert tree.branch(whole, "gradients") == two
    assert tree.nbytes(whole) == 16


def test_copies_stay_as_they_are_when_the_run_goes_on():
    run = {"w": Leaf(np.zeros(3), "block"), "guard": Leaf([1, 2])}
    kept = tree.copied(run)
    run["w"].value[:] = 1
    run["guard"].value.append(3)
    assert not kept["w"].value.any() and kept["guard"].value == [1, 2]
    assert kept["w"].placement == "block"


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_replica_that_goes_back_to_its_state_repeats_its_steps_to_the_bit(case, optimizer):
    """Every leaf counts: one that were left out, or an array that were no copy, would show."""
    saved, after = {}, {}
    options = {
        "grid": case.grid,
        "methods": case.methods,
        "micro_batches": 2 * case.world,
        "optimizer": optimizer,
        "end": False,
    }

    def body(comm):
        def watch(replica):
            seen = after.setdefault(comm.rank, [])
            seen.append(pieces(replica))
            if len(seen) == 5:  # a block is open
                saved[comm.rank] = tree.copied(replica.state())

        first = trained(comm, after=watch, steps=8, **options).replica
        assert {leaf.placement for leaf in first.state().values()} <= set(PLACEMENTS)
        return first.state(), said(first)

    def said(replica):
        axes = [replica.gradient, *filter(None, [replica.block])]
        return [axis.statistics() for axis in axes]

    def again(comm):
        seen = []

        def start(replica):
            replica.load(tree.copied(saved[comm.rank]))

        def watch(replica):
            seen.append(pieces(replica))

        second = trained(comm, before=start, after=watch, first=5, steps=8, **options).replica
        return seen, (second.state(), said(second))

    ranks = (0,) * case.world
    ends = spawn(ranks, body)
    for rank, (seen, (end, numbers)) in enumerate(spawn(ranks, again)):
        assert len(seen) == 3 and seen == after[rank][5:], rank
        assert list(end) == list(ends[0][0]) and numbers == ends[rank][1]
        for path, leaf in end.items():
            assert kept(leaf.value) == kept(ends[rank][0][path].value), path


def kept(value):
    """Return a leaf's value as something to compare."""
    return value.tobytes() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_leaf_is_where_its_placement_says(case):
    """While a block is open: what should be equal is, and what is a rank's own has its length."""
    trees, grid = {}, case.grid

    def body(comm):
        options = {"grid": case.grid, "methods": case.methods, "micro_batches": 2 * case.world}
        replica = trained(comm, steps=5, end=False, **options).replica
        trees[comm.rank] = tree.copied(replica.state())
        return replica.context.layout.shard

    shard = spawn((0,) * case.world, body)[0]
    for path, leaf in trees[0].items():
        values = {rank: trees[rank][path].value for rank in trees}
        vector = isinstance(leaf.value, np.ndarray)
        found = {}
        for rank, value in values.items():
            block, member, part = grid.place(rank)
            same = {
                "whole": (),
                "shard": (part,),
                "block": (block, part) if vector else (block,),
                "own": (block, member, part),
                "chunk": (block, member, part),
                "part": (block, member, part),
            }[leaf.placement]
            found.setdefault(same, set()).add(str(kept(value)))
        assert {len(different) for different in found.values()} == {1}, path
        if vector and leaf.placement in ("block", "own") and case in EVERY:
            members = grid.blocks if leaf.placement == "block" else grid.gradient
            assert (len(set().union(*found.values())) > grid.partition) == (members > 1), path
        if vector and leaf.placement == "chunk":
            for group in grid.groups("gradient"):
                assert sum(values[rank].size for rank in group) == shard, path
        elif vector:
            assert leaf.placement != "whole", path
            assert {value.shape for value in values.values()} == {(shard,)}, path
