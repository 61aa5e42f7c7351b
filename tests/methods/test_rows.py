"""What must hold of every row of the table of strategies, for all of its options.

Rows, methods and options are taken from the table: a new one is tested here without a word.
Ranks are threads (`loopback`).
"""

import numpy as np
import pytest
import rows
import tiny
from checks import serial
from listeners import Heard
from loopback import spawn
from rows import ALL, EVERY, FEW, STEPS, cuts, nonzero, pieces, refused, run, summed

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import STRATEGIES, Methods, Strategy
from refimpl.nn import Layout
from refimpl.optim import clip
from refimpl.state import tree
from refimpl.state.tree import recut
from refimpl.world import events
from refimpl.world.events import Listener
from refimpl.world.topology import Nodes

WORLDS = (1, 2, 4, 6, 8)
# All cuts of these worlds; of a row that only composes, those of the one that cuts units unevenly.
CUTS = [c for n in WORLDS for c in cuts(n) if n == 6 or not rows.composed(c.row)]


def digests(ranks):
    return {rank.trained.digest for rank in ranks}


@pytest.mark.parametrize("case", CUTS + ALL, ids=str)
def test_a_row_trains_as_serial_or_as_its_twin_without_shards(case):
    """All ranks end with one model; it is serial's if sums are all that is done to gradients."""
    one = digests(run(case))
    assert len(one) == 1
    share = {"micro_batches": 2 * case.world}
    want = serial(steps=STEPS, **share).digest
    if case.exact:
        assert one == {want}
    elif case.world > 1 and case in EVERY:
        assert one != {want}, "an example that shows nothing of the method"
    layout = tiny.network_layout(case.grid.partition)
    if case.twin is not None and case.methods.gradient.keeps_bits(layout):
        assert one == digests(rows.ran(*case.twin, **share))


@pytest.mark.parametrize(
    "case, options",
    [(case, {}) for case in ALL] + [(case, {"exact": False}) for case in FEW],
    ids=str,
)
def test_replicas_are_equal_after_every_step_and_blocks_after_every_sync(case, options):
    ranks, grid = run(case, **options), case.grid
    block = case.methods.block
    for step in range(STEPS):
        for rank, one in enumerate(ranks):
            first = grid.gradient_group(rank)[0]
            assert one.pieces[step] == ranks[first].pieces[step], (step, rank)
        if block is not None:
            for shard in range(grid.partition):
                held = {ranks[rank].pieces[step] for rank in grid.replication_group(shard)}
                within = step + 1 - block.warm
                if within <= 0 or (within % block.steps == 0 and block.together):
                    assert len(held) == 1
                elif step == STEPS - 1 and case in EVERY:
                    assert len(held) == grid.blocks, "blocks that did not train alone"
    assert len(digests(ranks)) == 1


@pytest.mark.parametrize("case", [case for case in FEW if case.grid.blocks > 1], ids=str)
def test_what_blocks_average_is_the_model_and_training_goes_on_from_their_start(case):
    ranks, grid = [one.trained for one in run(case)], case.grid
    for rank, one in enumerate(ranks):
        group = [ranks[other].replica for other in grid.partition_group(rank)]
        layout = one.replica.context.layout
        model = recut(Layout(one.replica.network.units), 0, layout, [r.block.model for r in group])
        named = [value.ravel() for value in one.parameters.values()]
        assert np.concatenate(named).tobytes() == model.tobytes()
        assert pieces(one.replica) == one.replica.block.start().tobytes()


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_what_is_clipped_is_the_norm_of_the_mean_gradient_of_a_block(case, monkeypatch):
    norms, coefficient = [], clip.coefficient
    monkeypatch.setattr(
        clip, "coefficient", lambda x, most: norms.append(x) or coefficient(x, most)
    )
    combined = {}

    class Kept(Listener):
        kinds = frozenset({"value"})

        def __init__(self, rank):
            self.rank = rank

        def begin(self, event):
            if event.name == "combined":
                combined[self.rank] = event.value.astype(float)

    def body(comm):
        with comm.events.listen(Kept(comm.rank)):
            options = {"grid": case.grid, "methods": case.methods, "clip": 1e9, "end": False}
            tiny.trained(comm, micro_batches=2 * case.world, steps=1, **options)

    spawn((0,) * case.world, body)
    frames = tiny.BATCH * 2 * case.grid.partition * case.grid.gradient
    want = []
    for rank in range(case.world):
        shards = [combined[other] for other in case.grid.partition_group(rank)]
        want.append(float(np.linalg.norm(np.concatenate(shards))) / frames)
    np.testing.assert_allclose(sorted(norms), sorted(want), rtol=1e-6)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_bytes_of_state_are_those_of_all_axes_and_of_the_gradients_that_are_kept(case):
    for one in run(case):
        replica = one.trained.replica
        states = replica.partition
        kept = states.stage in (1, 2) and states.whole.nbytes - states.weights().nbytes
        want = tree.nbytes(replica.state()) + states.accumulator.nbytes + kept
        assert replica.state_bytes == want


def sends_what_it_says(case, per_node=None, family="ring", **options):
    """Every step and every end of a block sends what the formulas say: by purpose and by link."""
    if family != "ring":
        options["algorithm"] = family
    ranks = run(case, per_node, **options)
    given = {"exact": True, "clip": tiny.CLIP} | options
    methods, grid = case.methods, case.grid
    setting = Setting(
        grid,
        Nodes.of(case.world, per_node),
        Layout(tiny.network().units, grid.partition),
        collectives.get(family),
        microsteps=2,
        exact=given["exact"],
        every_microstep=methods.gradient.every_microstep,
        clip=given["clip"] is not None,
    )
    names = [phase.name for phase in ranks[0].phases]
    length = methods.block.steps if methods.block is not None and grid.blocks > 1 else STEPS + 1
    warm, last = methods.warm_steps, STEPS - methods.warm_steps
    want = ["step"] * warm
    for step in range(1, last + 1):
        want += ["step"] + ["end of block"] * (step % length == 0)
    if grid.blocks > 1 and (last % length or not methods.block.together):
        want += ["end of block"]
    assert names == want
    for number, name in enumerate(names):
        phases = [rank.phases[number] for rank in ranks]
        said = [phase.statistics for phase in phases]
        if number < warm:
            calls = traffic.warm_calls(methods, setting)
        elif name == "step":
            calls = traffic.step_calls(methods, setting, said)
        else:
            calls = traffic.sync_calls(methods, setting, owed=phases[0].updated, said=said)
        assert summed(phases) == nonzero(traffic.sent(calls)), (number, name)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_ledgers_of_all_ranks_are_the_formula(case):
    sends_what_it_says(case)


KINDS = {
    axis: list(dict.fromkeys(getattr(row, axis) for row in STRATEGIES.values()))
    for axis in Methods._fields
}


@pytest.mark.parametrize("block", filter(None, KINDS["block"]), ids=lambda one: one.name)
@pytest.mark.parametrize("gradient", KINDS["gradient"], ids=lambda one: one.name)
def test_ledgers_are_the_formula_for_methods_that_no_row_composes(gradient, block, monkeypatch):
    """All partition methods, with their options alone and all options together, on all axes."""
    for partition in KINDS["partition"]:
        if partition is STRATEGIES[rows.SERIAL.name].partition:
            continue
        row = Strategy("composed", "P G n", partition, gradient, block, {}, "")
        monkeypatch.setitem(STRATEGIES, "composed", row)
        mine = partition.options()
        for case in rows.variants(row):
            if len(case.given) != 3 or case.given[-1][0] in mine:
                sends_what_it_says(case)


@pytest.mark.parametrize(
    "per_node, exact, clip", [(1, True, None), (2, False, None), (3, False, tiny.CLIP)]
)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_ledgers_are_the_formula_on_nodes_and_in_both_reductions(case, per_node, exact, clip):
    sends_what_it_says(case, per_node, exact=exact, clip=clip)


@pytest.mark.parametrize("family", ["halving-doubling", "hierarchical", "auto"])
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_ledgers_are_the_formula_with_other_collectives(case, family):
    per_node = next(
        k for k in (2, case.world) if not refused(case, family, Nodes.of(case.world, k))
    )
    sends_what_it_says(case, per_node, family)


# ---------------------------------------------------------------------------------- events


@pytest.mark.parametrize("case", FEW, ids=str)
def test_nothing_is_made_for_listeners_where_there_are_none(case, monkeypatch):
    """The ledger counts without an `Event`; values that only a listener wants are not computed."""

    def body(comm):
        tell = comm.events.tell
        told = []
        comm.events.tell = lambda name, value: (told.append(name), tell(name, value))
        options = {"grid": case.grid, "methods": case.methods, "steps": STEPS}
        digest = tiny.trained(comm, micro_batches=2 * case.world, **options).digest
        return digest, "margin" in told

    with monkeypatch.context() as patch:
        patch.setattr(events, "Event", None)
        silent = spawn((0,) * case.world, body)
    assert not any(margin for _, margin in silent)
    watched = run(case)
    assert {digest for digest, _ in silent} == digests(watched)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_listener_hears_begin_and_end_of_everything_and_properly_nested(case):
    heard = {}

    def body(comm):
        heard[comm.rank] = Heard(*events.KINDS)
        with comm.events.listen(heard[comm.rank]):
            options = {"grid": case.grid, "methods": case.methods, "steps": 2}
            tiny.trained(comm, micro_batches=2 * case.world, **options)
        return comm.ledger.total()

    for rank, total in enumerate(spawn((0,) * case.world, body)):
        open_events, sends = [], []
        for what, event in heard[rank].log:
            if what == "begin":
                open_events.append(event)
                sends += [event] if event.kind == "send" else []
            else:
                assert open_events.pop() is event
        assert not open_events
        assert (len(sends), sum(event.nbytes for event in sends)) == total
        assert {"phase", "compute", "value"} <= {event.kind for event in heard[rank].begun}
