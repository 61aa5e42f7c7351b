"""What ranks should hold alike is compared: a flipped bit is found, and named, in every leaf."""

import numpy as np
import pytest
import tiny
from loopback import spawn
from rows import EVERY

from refimpl.state import drift, tree
from refimpl.state.drift import COMPARED, Comparison, groups_of
from refimpl.support.errors import Drifted
from refimpl.world.agree import named
from refimpl.world.ledger import summed
from refimpl.world.topology import Grid, Nodes


def flipped(value, where=-1):
    """Return the value with one bit of it flipped, of its element ``where``."""
    if isinstance(value, bool):
        return not value
    if not isinstance(value, np.ndarray):
        return value + 1 if not isinstance(value, list) else [value[0] + 1, *value[1:]]
    other = value.copy()
    other.view(np.uint8).reshape(value.size, -1)[where, 0] ^= 1
    return other


def trials(comm, case, odd):
    """Yield (path, placement, what all ranks are told) for a bit that flips on rank ``odd``."""
    found = []

    def after(replica):
        if replica.steps != 2:
            return
        layout, kept = replica.context.layout, tree.copied(replica.state())
        Comparison().compare(replica.groups, layout, replica.state(), 2)
        for path, leaf in kept.items():
            bad = leaf._replace(value=flipped(leaf.value))
            replica.load(kept | {path: bad} if comm.rank == odd else kept)
            try:
                Comparison().compare(replica.groups, layout, replica.state(), 2)
                found.append((path, leaf.placement, None))
            except Drifted as error:
                found.append((path, leaf.placement, str(error)))
            replica.load(kept)

    options = {"steps": 2, "micro_batches": case.world, "end": False}
    tiny.trained(comm, grid=case.grid, methods=case.methods, after=after, **options)
    return found


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_flipped_bit_is_found_wherever_another_rank_holds_the_same(case):
    odd, grid = case.world - 1, case.grid
    told = spawn(Nodes.of(case.world, 2).node, lambda comm: trials(comm, case, odd))
    assert all(one == told[0] for one in told)
    assert len(told[0]) >= 3
    for path, placement, text in told[0]:
        others = []
        if placement in COMPARED:
            (group,) = [group for group in groups_of(grid, placement) if odd in group]
            others = [rank for rank in group if rank != odd]
        if not others:
            assert text is None, (path, text)
            continue
        assert text.startswith(f"replicas differ after step 2: {path}"), (path, text)
        if len(others) == 1:
            assert "no majority" in text, text
        else:
            right = f"on rank {odd} (node {odd // 2}) is not that of {named(others)}; "
            assert right in text, text


def test_cases_have_all_placements():
    """Or else the test above would show little."""
    kinds = {placement for case in EVERY for placement in placements(case)}
    assert kinds == {*tree.PLACEMENTS}


def placements(case):
    def body(comm):
        found = tiny.trained(comm, grid=case.grid, methods=case.methods, steps=0)
        return [leaf.placement for leaf in found.replica.state().values()]

    return spawn((0,) * case.world, body)[0]


@pytest.mark.parametrize(
    "number, unit", [(0, "layer0"), (76, "layer0"), (77, "layer1"), (-1, "layer2")]
)
def test_the_unit_is_that_of_the_layout(number, unit):
    def body(comm):
        groups = tiny.Groups.split(comm, Grid(1, 3, 2))
        layout = tiny.network_layout(2)
        state = {"parameters": tree.Leaf(np.zeros(layout.shard, np.float32), "block")}
        if comm.rank == 4:
            state["parameters"].value.view(np.uint32)[number] ^= 1
        with pytest.raises(Drifted) as error:
            Comparison().compare(groups, layout, state, 7)
        return str(error.value)

    told = set(spawn((0, 0, 0, 1, 1, 1), body))
    assert told == {
        f"replicas differ after step 7: parameters of unit {unit} on rank 4 (node 1) is not that "
        "of ranks 0, 2; first comparison"
    }


def test_blocks_may_differ_inside_a_block_and_shards_may_not():
    def body(comm, placement):
        groups, layout = tiny.Groups.split(comm, Grid(2, 1, 1)), tiny.network_layout(1)
        value = np.full(layout.shard, comm.rank, np.float32)
        Comparison().compare(groups, layout, {"x": tree.Leaf(value, placement)}, 1)

    spawn((0, 0), lambda comm: body(comm, "block"))
    with pytest.raises(Drifted, match="x of unit layer0 is not the same on ranks 0 .node 0., 1"):
        spawn((0, 0), lambda comm: body(comm, "shard"))


def test_what_is_each_ranks_own_by_another_name_is_not_compared():
    def body(comm):
        groups, layout = tiny.Groups.split(comm, Grid(1, 2, 1)), tiny.network_layout(1)
        state = tree.whole({"seconds": comm.rank, "warned": comm.rank, "step": 3})
        Comparison().compare(groups, layout, state, 3)

    spawn((0, 0), body)


@pytest.mark.parametrize("grid", [Grid(1, 1, 1), Grid(1, 1, 3), Grid(2, 2, 1), Grid(2, 2, 2)])
def test_a_comparison_costs_what_it_says(grid):
    nodes = Nodes.of(grid.world, 3).node

    def body(comm):
        groups, layout = tiny.Groups.split(comm, grid), tiny.network_layout(grid.partition)
        state = {"x": tree.Leaf(np.ones(layout.shard, np.float32), "block")}
        comm.ledger.clear()
        Comparison().compare(groups, layout, state, 1)
        assert set(comm.ledger.by_purpose()) <= {"control"}
        return comm.ledger.totals()

    assert summed(spawn(nodes, body)) == drift.cost(nodes).total()
    n = grid.world
    assert sum(count.messages for count in drift.cost(nodes).total().values()) == n * (n - 1)
    assert sum(count.bytes for count in drift.cost(nodes).total().values()) == n * (n - 1) * 24
