"""Threshold compression over many steps: an epoch's figures, what is owed, what is lost."""

import numpy as np
import pytest
from axes import combine, context
from loopback import spawn

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.protocol import Context, Setting
from refimpl.nn.flat import one_unit
from refimpl.world.groups import Groups
from refimpl.world.ledger import Count
from refimpl.world.topology import Grid, Nodes


def alone(n, **options):
    return Threshold(**options).build(context(n))


def on_four(options, exact=False, n=4):
    """Return a function of comm that builds a compressor: two workers of two ranks."""

    def build(comm):
        groups = Groups.split(comm, Grid(1, 2, 2))
        ring, dtype = collectives.get("ring"), np.dtype(np.float32)
        return Threshold(**options).build(
            Context(groups, ring, one_unit(n, 2), dtype, exact=exact)
        )

    return build


def test_where_nothing_is_owed_a_fold_is_no_step():
    compressor, memory = alone(3, tau=1.0, at_sync="fold"), np.full(3, 99, np.float32)
    assert compressor.settle(memory) is None
    compressor.residual[1] = 0.5
    assert compressor.settle(memory).tolist() == [0, 0.5, 0]
    assert compressor.settle(memory) is None and not compressor.residual.any()


@pytest.mark.parametrize("exact", [False, True])
def test_a_fold_is_a_step_on_all_shards_or_on_none(exact):
    """One rank of four owes something, and then nobody does."""
    build = on_four({"tau": 1.0, "at_sync": "fold"}, exact)

    def body(comm):
        compressor = build(comm)
        memory = np.zeros(2, np.int64 if exact else np.float32)
        compressor.residual[0] = comm.rank == 3
        first = compressor.settle(memory)
        return first if first is None else first.tolist(), compressor.settle(memory)

    assert spawn((0,) * 4, body) == [([0, 0], None), ([1, 0], None)] * 2


def test_what_settling_sends_is_its_formula():
    """Dense sums of the shards, and a number from each of them."""
    options = {"tau": 1.0, "at_sync": "fold"}
    build = on_four(options)

    def body(comm):
        build(comm).settle(np.zeros(2, np.float32))
        return comm.ledger.by_purpose()

    nodes = Nodes.of(4, 2)
    setting = Setting(Grid(1, 2, 2), nodes, one_unit(4, 2), collectives.get("ring"))
    want = traffic.sent(Threshold(**options).settling(setting))
    books = spawn(nodes.node, body)
    assert set(want) == {"gradients", "control"}
    for purpose, links in want.items():
        for link, count in links.items():
            sent = sum((book[purpose][link] for book in books), Count())
            assert sent == count, (purpose, link)
    assert Threshold(tau=1.0).settling(setting) is None


def test_plain_sgd_has_applied_after_a_fold_what_it_computed_and_momentum_has_not():
    """Three gradients of 0.75 at rate 1: 2.25 in all, and 4.5 with momentum 0.5."""

    def moved(momentum):
        compressor, w, v = alone(1, tau=1.0, at_sync="fold"), 0.0, 0.0
        memory = np.zeros(1, np.float32)
        for _ in range(3):
            v = momentum * v + float(compressor.combine(np.full(1, 0.75, np.float32))[0])
            w += v
        v = momentum * v + float(compressor.settle(memory)[0])
        return w + v

    assert moved(0.0) == 2.25
    dense = 0.75 + (0.75 * 1.5) + (0.75 * 1.75)
    assert moved(0.5) != dense


def test_an_epochs_density_is_the_mean_over_its_steps_ranks_and_shards():
    """Of 4 values in 2 shards, two workers send 8 and 2 of 16: the last step of one has none."""
    build = on_four({"tau": 1.0, "warmup": 1})

    def body(comm):
        compressor = build(comm)
        every, none = np.full(2, 4.0, np.float32), np.zeros(2, np.float32)
        for step in range(3):
            compressor.combine((none if step == 2 and comm.rank < 2 else every).copy())
            if step == 2:
                compressor.residual[:] = comm.rank
        # warm-up; then ranks send 2, 2, 2, 2 and, what is left being 3, 2, 2, 2, 2 entries
        told = compressor.told()
        assert compressor.told() | {"residual": 0} == dict.fromkeys(told, 0)
        return compressor.epoch(comm.allgather_object(told)), told

    for numbers, told in spawn((0,) * 4, body):
        assert told["steps"] == 2 and told["entries"] == 4
        assert (numbers["density"], numbers["entries"], numbers["residual"]) == (1.0, 2.0, 3.0)


def test_density_of_steps_and_groups_that_differ():
    """Rank r sends r of its 4 values in the first step, and all in the second."""

    def body(comm):
        groups = Groups.split(comm, Grid(2, 1, 1))
        ring, dtype = collectives.get("ring"), np.dtype(np.float32)
        compressor = Threshold(tau=1.0).build(Context(groups, ring, one_unit(4, 1), dtype))
        compressor.combine((np.arange(4) < comm.rank).astype(np.float32) * 1.5)
        compressor.combine(np.full(4, 2.0, np.float32))
        return compressor.epoch(comm.allgather_object(compressor.told()))

    for numbers in spawn((0, 0), body):
        assert numbers["density"] == 9 / 16 and numbers["entries"] == 9 / 4


def test_a_residual_that_does_not_notice_what_is_sent_is_told():
    compressor = alone(2, tau=1.0)
    combine(compressor, np.array([2.0**23, 0], np.float32))
    assert compressor.residual[0] == 2.0**23 - 1 and "2^24" not in compressor.warnings()[0]
    combine(compressor, np.array([2.0**26, 0], np.float32))
    before = compressor.residual.copy()
    combine(compressor, np.zeros(2, np.float32))
    assert (compressor.residual == before).all()  # although tau was sent
    assert "beyond 2^24 tau" in compressor.warnings()[0]
    other = alone(2, tau=1.0)
    other.epoch([{"steps": 0, "entries": 0, "message_bytes": 0, "residual": 2.0**24}])
    assert "beyond 2^24 tau" in other.warnings()[0]  # another rank's
