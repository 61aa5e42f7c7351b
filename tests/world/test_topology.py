"""The rank grid is a numbering: every rank has one place, every group the right members."""

import re
from xml.etree import ElementTree

import pytest

from refimpl.support import svg
from refimpl.support.errors import UserError
from refimpl.world.drawing import drawing, picture
from refimpl.world.topology import Grid, Nodes, divisors


def grids(largest=64):
    for world in range(1, largest + 1):
        for p in divisors(world):
            for g in divisors(world // p):
                yield Grid.cut(world, p, g)


def test_every_grid_up_to_64_ranks_numbers_its_places_once_partition_fastest():
    for grid in grids():
        places = [grid.place(rank) for rank in range(grid.world)]
        assert places == sorted(places) and len(set(places)) == grid.world
        assert [grid.rank(*place) for place in places] == list(range(grid.world))


@pytest.mark.parametrize(
    "group, length", [("partition", "partition"), ("gradient", "gradient"), ("block", "blocks")]
)
def test_groups_of_an_axis_tile_the_world_and_vary_only_along_it(group, length):
    for grid in grids(24):
        members = {tuple(getattr(grid, f"{group}_group")(rank)) for rank in range(grid.world)}
        assert sorted(r for ranks in members for r in ranks) == list(range(grid.world))
        for ranks in members:
            assert len(ranks) == getattr(grid, length)
            for name, along in zip(("block", "gradient", "partition"), range(3), strict=True):
                seen = {grid.place(rank)[along] for rank in ranks}
                assert len(seen) == (len(ranks) if name == group else 1)


def test_partition_groups_are_neighbours_and_replication_groups_hold_one_shard():
    for grid in grids(24):
        for rank in range(grid.world):
            group = grid.partition_group(rank)
            assert group == list(range(group[0], group[0] + grid.partition))
            column = grid.replication_group(rank)
            assert {grid.place(r).shard for r in column} == {grid.place(rank).shard}
            assert len(column) == grid.workers and rank in column


def test_micro_batches_are_shared_out_once_whatever_the_grid():
    for grid in grids(16):
        for steps in (1, 2, 3):
            numbers = [
                grid.micro_batch(rank, m, steps)
                for rank in range(grid.world)
                for m in range(steps)
            ]
            assert sorted(numbers) == list(range(grid.micro_batches(steps)))


def test_a_sharded_worker_sees_what_its_unsharded_twin_sees_in_p_times_the_micro_steps():
    for p, g, b, s in [(2, 3, 1, 2), (4, 1, 2, 1), (3, 2, 2, 3)]:
        grid, twin = Grid(b, g, p), Grid(b, g, 1)
        for worker in range(grid.workers):
            shared = [
                grid.micro_batch(worker * p + shard, m, s) for m in range(s) for shard in range(p)
            ]
            assert shared == [twin.micro_batch(worker, m, s * p) for m in range(s * p)]


@pytest.mark.parametrize(
    "world, p, g, culprit, works",
    [
        (8, 3, None, "partition groups of 3", "[1, 2, 4, 8]"),
        (8, 16, None, "partition groups of 16", "[1, 2, 4, 8]"),
        (8, 2, 3, "GTC groups of 3", "[1, 2, 4]"),
        (8, 1, 0, "GTC groups of 0", "[1, 2, 4, 8]"),
    ],
)
def test_a_group_size_that_does_not_divide_is_refused_with_those_that_do(
    world, p, g, culprit, works
):
    with pytest.raises(UserError) as refusal:
        Grid.cut(world, p, g)
    assert culprit in str(refusal.value) and works in str(refusal.value)


def test_the_last_node_may_be_smaller_and_links_follow_the_nodes():
    nodes = Nodes.of(7, 3)
    assert nodes.node == (0, 0, 0, 1, 1, 1, 2) and nodes.count == 3
    assert nodes.link(0, 2) == "intra" and nodes.link(2, 3) == "inter"
    assert nodes.spanned([0, 1, 2]) == 1 and nodes.spanned([2, 3, 6]) == 3


def test_the_drawing_names_every_rank():
    text = drawing(Grid.cut(16, 2, 4), Nodes.of(16, 4))
    assert text.startswith("16 ranks = 2 blocks x 4 members x 2 shards, 4 nodes")
    row = next(line for line in text.splitlines() if line.startswith("block 1"))
    assert row.split() == ["block", "1", "member", "0", "8", "9", "node", "2"]
    assert "{0, 8} {1, 9} {2, 10}" in text
    assert "none" in drawing(Grid.cut(4), Nodes.of(4))


def test_a_picture_has_every_rank_once_in_the_colour_of_its_node():
    grid, nodes = Grid(2, 2, 2), Nodes.of(8, 4)
    shown = picture(grid, nodes)
    ElementTree.fromstring(shown)
    boxes = re.findall(r'fill="(#\w+)"/><text[^>]*>(\d+)\*?</text>', shown)
    assert boxes == [(svg.fill(nodes.node[rank]), str(rank)) for rank in range(8)]
    for line in drawing(grid, nodes).splitlines():
        if "groups" in line:  # both say the same of them
            assert line[19:] in shown


def test_a_picture_of_too_many_ranks_is_refused():
    with pytest.raises(UserError, match="take at most 256 ranks"):
        picture(Grid(1, 512, 1), Nodes.of(512))
