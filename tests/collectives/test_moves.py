"""What moves is what an operation is for, and its pictures are whole and always the same."""

import re
from xml.etree import ElementTree

import pytest

from refimpl.collectives import explain, tree
from refimpl.collectives.cost import Step
from refimpl.collectives.families import EXPLICIT
from refimpl.collectives.interface import Algorithm, Family
from refimpl.collectives.moves import heard, moves
from refimpl.support.errors import UserError

CALLS = [(one, operation) for one in EXPLICIT for operation in one.algorithms]


@pytest.mark.parametrize("nodes", [(0, 0, 1, 1), (0, 1, 2, 0, 1, 2), (0,) * 5], ids=str)
@pytest.mark.parametrize("family, operation", CALLS, ids=lambda x: getattr(x, "name", x))
def test_blocks_end_where_the_operation_brings_them(family, operation, nodes):
    found = moves(family, operation, nodes)
    p = len(nodes)
    for rank, has in enumerate(found.stages[-1].after):
        if operation == "alltoall":  # x is as it was, and row s of the result has come from s
            assert [has.pop(slot) for slot in range(p)] == [(chunk, (rank,)) for chunk in range(p)]
            assert has == {p + source: (rank, (source,)) for source in range(p)}
            continue
        got = {slot: sorted(block.ranks) for slot, block in has.items()}
        assert all(block.chunk == slot for slot, block in has.items())
        everyone, own = list(range(p)), [[owner] for owner in range(p)]
        want = {
            "allgather": dict(enumerate(own)),
            "broadcast": {chunk: [0] for chunk in range(p)},
            "reduce_scatter": {rank: everyone},
            "allreduce": dict.fromkeys(range(p), everyone),
            "reduce": dict.fromkeys(range(p), everyone) if rank == 0 else {},
        }
        assert got == want[operation]
    cost = family.cost(operation, p, nodes, itemsize=1)
    for link in ("intra", "inter"):
        blocks = [m for s in found.sending for m in s.moves if m.link == link]
        assert len(blocks) == cost.total()[link].bytes


def test_what_arrives_in_scratch_is_brought_to_its_place_by_a_stage_of_its_own():
    found = heard("hierarchical", "allgather", 4, 2)
    assert [stage.local for stage in found.stages] == [False, True, False]
    assert found.scratch == 2
    assert {m.to_slot for m in found.stages[0].moves} == {4, 5}
    assert {(m.from_slot, m.to_slot) for m in found.stages[1].moves if m.source == 0} == {
        (4, 0),
        (5, 2),
    }


@pytest.mark.parametrize("name", explain.NAMES)
def test_a_picture_is_whole_and_the_same_every_time(name):
    k = 3 if name.startswith("hierarchical") else None
    picture = explain.picture(name, 6, k)
    assert picture == explain.picture(name, 6, k)
    ElementTree.fromstring(picture)
    assert "<script" not in picture and not re.search(r"\d\.\d{3}", picture)
    assert set(re.findall(r"animation-name:(\S+?)!", picture)) == set(
        re.findall(r"@keyframes (\S+?)\{", picture)
    )


def test_a_picture_lets_every_block_that_moves_fly():
    found = heard("ring", "allreduce", 4)
    flying = re.findall(r'class="fly f(\d+)"', explain.picture("ring", 4))
    assert [flying.count(str(place)) for place in range(6)] == [4] * 6
    assert len(flying) == sum(len(stage.moves) for stage in found.stages)


def test_what_both_ends_add_is_there_until_the_sum_is():
    found = heard("recursive-doubling", "allreduce", 3)
    sent = [{(m.source, m.dest) for m in stage.moves} for stage in found.stages]
    assert sent == [{(0, 1)}, {(1, 2), (2, 1)}, {(1, 0)}]
    assert not found.stages[0].keeps(0, 0) and found.stages[1].keeps(1, 0)
    assert [sorted(has) for has in found.stages[0].after] == [[], [0, 1, 2], [0, 1, 2]]


def test_a_rank_by_itself_has_no_picture():
    with pytest.raises(UserError, match="nothing to draw: give -p 2"):
        explain.picture("ring", 1)


# Of a broadcast to ranks 1 and 2: a schedule that is wrong, and what is said of it.
WRONG = {
    "step 1 of broadcast names rank 3: there are 0 to 2": [([1, 2], 3), (3, 3)],
    "step 0 of broadcast names rank -1: there are 0 to 2": [(-1, 3)],
    "has a message 0->1 of 2 elements, but 3 arrive": [([1, 2], 2)],
    "has a message 0->1 of 3 elements, but none arrive": [([1, 2], 3), (1, 3)],
    "has no message 0->1 where one more is sent": [(2, 3)],
}


@pytest.mark.parametrize("message", WRONG)
def test_a_schedule_that_is_not_what_is_sent_is_told(message):
    steps = [Step.of(0, dest, size) for dest, size in WRONG[message]]
    wrong = Family("wrong", {"broadcast": Algorithm(tree.broadcast, lambda call: steps)})
    with pytest.raises(UserError, match=f"^collectives wrong: .*{message}$"):
        moves(wrong, "broadcast", (0, 0, 0))
