"""The warm start: all blocks as one first, and a border that nothing crosses but the model."""

from dataclasses import replace

import pytest
import tiny
from checks import serial
from loopback import spawn
from rows import EVERY

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.nn.flat import one_unit
from refimpl.support.errors import UserError
from refimpl.world.topology import Nodes

WITH_BLOCKS = [case for case in EVERY if case.grid.blocks > 1]
LAST = 7


def warm(case, steps):
    """The methods of a case, after so many steps of a warm start."""
    return case.methods._replace(block=replace(case.methods.block, warm=steps))


def taken(case, methods, grid, **options):
    """What each rank has after some steps of two micro-steps; float sums if not told."""
    given = {"micro_batches": 2 * case.world, "exact": False, "clip": None, "steps": LAST}
    body = lambda comm: tiny.trained(comm, methods=methods, grid=grid, **given | options)  # noqa: E731
    return spawn((0,) * case.world, body)


@pytest.mark.parametrize(
    "case", [c for c in WITH_BLOCKS if c.name in ("bmuf", "mics-gtc-bmuf", "diloco")], ids=str
)
def test_a_warm_start_is_data_parallel_and_then_blocks_begin_from_where_it_ended(case):
    """To the bit, with float sums: as without blocks, and as a run that begins with that state."""
    begun = taken(case, case.methods.warm(), case.grid.joined(), steps=4, end=False)
    alone = {one.digest for one in taken(case, warm(case, 4), case.grid, steps=4)}
    assert alone == {one.digest for one in begun} and len(alone) == 1

    states = [one.replica.partition.state() for one in begun]

    def load(replica):
        replica.partition.load(states[replica.groups.world.rank])
        replica.block.begin(replica.partition.weights())

    want = taken(case, case.methods, case.grid, first=4, before=load)
    found = taken(case, warm(case, 4), case.grid)
    assert {one.digest for one in found} == {one.digest for one in want} != alone
    for one, other in zip(found, want, strict=True):
        for name, leaf in other.replica.state().items():
            if name not in ("steps", "block_start"):
                assert repr(leaf) == repr(one.replica.state()[name]), name


@pytest.mark.parametrize("name", ["mics-gtc-bmuf", "diloco"])
def test_with_exact_sums_it_is_serial(name):
    case = next(case for case in WITH_BLOCKS if case.name == name)
    options = {"micro_batches": 2 * case.world, "steps": 4, "clip": None}
    found = taken(case, warm(case, 4), case.grid, exact=True, steps=4)
    assert {one.digest for one in found} == {serial(**options).digest}


def test_with_one_block_it_is_a_dense_beginning_of_compression():
    case = next(case for case in WITH_BLOCKS if case.name == "gtc-bmuf")
    grid, dense = case.grid.joined(), case.methods._replace(block=None)
    dense = dense._replace(gradient=replace(dense.gradient, warmup=2))
    found, want = taken(case, warm(case, 2), grid), taken(case, dense, grid)
    assert {one.digest for one in found} == {one.digest for one in want}


def test_collectives_that_cannot_run_on_all_blocks_are_refused():
    """Only the four together lie unevenly on nodes: three on one, one on the other."""
    case = next(case for case in WITH_BLOCKS if case.name == "gtc-bmuf")
    setting = Setting(
        case.grid, Nodes((0, 0, 0, 1)), one_unit(9, 1), collectives.get("hierarchical")
    )
    traffic.check(case.methods, setting)
    with pytest.raises(UserError, match=r"^gradient group \{0, 1, 2, 3\}: "):
        traffic.check(warm(case, 1), setting)
