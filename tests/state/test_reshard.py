"""A checkpoint on another grid: what every rank takes of it, in whole numbers."""

from dataclasses import asdict

import numpy as np
import pytest
from tiny import Bare

from refimpl.collectives import chunks
from refimpl.nn.flat import Layout
from refimpl.state import checkpoint, reshard
from refimpl.state.checkpoint import Checkpoint
from refimpl.state.tree import Leaf, recut
from refimpl.support.errors import UserError
from refimpl.world.topology import Grid, Place

UNITS = [Bare("a", (2, 3), (3,)), Bare("none", (0,)), Bare("b", (1,)), Bare("c", (4, 5))]
GRIDS = [Grid(1, 1, 1), Grid(1, 2, 3), Grid(1, 6, 1), Grid(2, 2, 2), Grid(2, 1, 3), Grid(4, 1, 1)]
WHOLE = Layout(UNITS)


def numbers(seed):
    """Return a vector of whole numbers, as large as float32 can add without rounding."""
    return np.random.default_rng(seed).integers(-(2**18), 2**18, WHOLE.size).astype(np.float32)


def vector(name, block=0, worker=0):
    """Return what a worker's vector of a name is, whole."""
    return numbers([len(name), block, worker])


def tree_of(grid, rank, several):
    """Return the state of one rank; ``several``: blocks differ."""
    layout, place = Layout(UNITS, grid.partition), grid.place(rank)
    worker = grid.worker(rank)

    def cut(name, block=0, worker=0):
        return recut(layout, place.shard, WHOLE, [vector(name, block, worker)])

    owned = cut("owned", place.block)
    chunk = chunks.slices(owned, grid.gradient)[place.member]
    return {
        "weights": Leaf(cut("weights", place.block if several else 0), "block"),
        "W": Leaf(cut("W"), "shard"),
        "residual": Leaf(cut("residual", worker=worker), "own"),
        "owned": Leaf(owned[chunk], "chunk"),
        "targets": Leaf(np.arange(5), "whole"),
        "step": Leaf(7),
        "tau": Leaf([place.block + 1.0], "block"),
        "guard": Leaf([rank], "own"),
        "losses": Leaf([1, rank], "part"),
    }


def saved(folder, grid, several=False):
    parts = []
    for rank in range(grid.world):
        place, state = grid.place(rank), tree_of(grid, rank, several)
        mine = checkpoint.own_part(state, place)
        parts.append(checkpoint.write_part(folder, rank, place, mine))
    head = {"step": 7, "config": {}, "grid": asdict(grid)}
    checkpoint.complete(folder, head, Layout(UNITS, grid.partition), parts)
    return Checkpoint(folder)


def taken(one, grid, several=False):
    """Return what all ranks of a grid take of a checkpoint."""
    layout = Layout(UNITS, grid.partition)
    return [
        reshard.fitted(one, tree_of(grid, rank, several), grid, rank, layout)
        for rank in range(grid.world)
    ]


def joined(grid, trees, name, worker):
    """Return the whole vector of a worker."""
    first = worker * grid.partition
    shards = [trees[rank][name].value for rank in range(first, first + grid.partition)]
    return recut(WHOLE, 0, Layout(UNITS, grid.partition), shards)


@pytest.mark.parametrize("grid", GRIDS, ids=Grid.sentence)
def test_on_the_same_grid_all_is_as_it_was(grid, tmp_path):
    for rank, found in enumerate(taken(saved(tmp_path, grid, True), grid, True)):
        for name, leaf in tree_of(grid, rank, True).items():
            if isinstance(leaf.value, np.ndarray):
                np.testing.assert_array_equal(found[name].value, leaf.value, strict=True)
            else:
                assert found[name] == leaf, name


@pytest.mark.parametrize("new", GRIDS, ids=Grid.sentence)
@pytest.mark.parametrize("old", GRIDS, ids=Grid.sentence)
def test_on_another_grid_vectors_are_the_same_and_what_is_owed_is_conserved(old, new, tmp_path):
    one = saved(tmp_path, old)
    trees = taken(one, new)
    for worker in range(new.workers):
        np.testing.assert_array_equal(joined(new, trees, "weights", worker), vector("weights"))
        np.testing.assert_array_equal(joined(new, trees, "W", worker), vector("W"))
    owed = sum(vector("residual", worker=w) for w in range(old.workers))
    held = sum(joined(new, trees, "residual", w) for w in range(new.workers))
    np.testing.assert_array_equal(held, owed)
    if old != new:
        for worker in range(new.workers):
            mine = [w for w in range(old.workers) if w * new.workers // old.workers == worker]
            want = sum((vector("residual", worker=w) for w in mine), np.zeros_like(owed))
            np.testing.assert_array_equal(joined(new, trees, "residual", worker), want)
    owned = sum(vector("owned", block) for block in range(old.blocks))
    total = np.zeros(WHOLE.size, np.float32)
    for block in range(new.blocks):
        shards = [
            np.concatenate(
                [trees[new.rank(block, m, s)]["owned"].value for m in range(new.gradient)]
            )
            for s in range(new.partition)
        ]
        total += recut(WHOLE, 0, Layout(UNITS, new.partition), shards)
    np.testing.assert_array_equal(total, owned)
    assert sum(np.array(found["losses"].value) for found in trees).tolist() == [
        old.world,
        sum(range(old.world)),
    ]
    assert {found["step"].value for found in trees} == {7}
    assert all((found["targets"].value == np.arange(5)).all() for found in trees)


def test_what_rounding_leaves_is_the_next_workers(tmp_path):
    """Two of 2^24 and two ones, on two workers: floats hold the sum only together."""
    old, new, layout = Grid(1, 4, 1), Grid(1, 2, 1), Layout([Bare("one", (1,))])
    parts = []
    for rank, number in enumerate((2.0**24, 1.0, 1.0, 1.0)):
        tree = {"residual": Leaf(np.array([number], np.float32), "own")}
        parts.append(checkpoint.write_part(tmp_path, rank, old.place(rank), tree))
    head = {"step": 1, "config": {}, "grid": asdict(old)}
    checkpoint.complete(tmp_path, head, layout, parts)
    one, template = Checkpoint(tmp_path), {"residual": Leaf(np.zeros(1, np.float32), "own")}
    found = [reshard.fitted(one, template, new, r, layout)["residual"].value for r in range(2)]
    assert [float(value[0]) for value in found] == [2.0**24, 3.0]


@pytest.mark.parametrize("new", [Grid(1, 2, 2), Grid(4, 2, 1)], ids=Grid.sentence)
def test_blocks_that_differ_cannot_become_another_number_of_blocks(new, tmp_path):
    one = saved(tmp_path, Grid(2, 2, 2), several=True)
    with pytest.raises(UserError, match="weights is another in each of 2 blocks"):
        taken(one, new)
    taken(one, Grid(2, 1, 3), several=True)  # of as many, cut anew


def test_leaves_and_networks_that_are_others_are_refused(tmp_path):
    grid = Grid(1, 2, 1)
    one, mine = saved(tmp_path, grid), tree_of(grid, 0, False)
    layout = Layout(UNITS)
    for state, said in (
        (mine | {"D": Leaf(np.zeros(3), "shard")}, "has no D, which"),
        ({k: v for k, v in mine.items() if k != "W"}, "W would be lost"),
        (mine | {"W": Leaf(np.zeros(3), "shard")}, "W is float32, this run needs float64"),
    ):
        with pytest.raises(UserError, match=said):
            reshard.fitted(one, state, grid, 0, layout)
    with pytest.raises(UserError, match="another network"):
        reshard.fitted(one, mine, grid, 0, Layout(UNITS[:-1]))


def test_every_leaf_is_written_once_by_the_first_that_holds_it(tmp_path):
    one = saved(tmp_path, Grid(2, 2, 2))
    written = {}
    for name, place in [*one.arrays, *one.values]:
        written.setdefault(name, []).append(place)
    shards, first = (0, 1), Place(0, 0, 0)
    assert written["W"] == [Place(0, 0, s) for s in shards]
    assert written["weights"] == [Place(b, 0, s) for b in (0, 1) for s in shards]
    assert written["tau"] == [Place(b, 0, 0) for b in (0, 1)]
    assert written["step"] == written["targets"] == [first]
    assert all(len(written[name]) == 8 for name in ("residual", "owned", "guard", "losses"))
