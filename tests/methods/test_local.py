"""What a worker does with its gradient before GTC compresses it: DGC's clip and momentum."""

import numpy as np
import pytest
import tiny
from loopback import spawn

from refimpl import collectives, optim
from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.protocol import Context
from refimpl.nn.flat import one_unit
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid


def combined(gradients, frames=1, partition=1, **options):
    """What is applied and owed on each rank: gradients (steps, ranks, n) in float32."""
    gradients = np.array(gradients, np.float32)
    ranks = gradients.shape[1]

    def body(comm):
        groups = Groups.split(comm, Grid(1, ranks // partition, partition))
        layout = one_unit(gradients.shape[2] * partition, partition)
        ring = collectives.get("ring")
        context = Context(groups, ring, layout, np.dtype(np.float32), frames=frames)
        axis = Threshold(tau=2.0, **options).build(context)
        applied = [axis.combine(one[comm.rank].copy()).copy() for one in gradients]
        return np.array(applied), axis.residual, axis.local.velocity

    return spawn((0,) * ranks, body)


def test_momentum_before_the_threshold_is_forgotten_where_something_was_sent():
    """By hand: u = 1, 1.5, 1.75; r = 1, 2.5: sent, 0.5 and u = 0; then u = 1, r = 1.5."""
    ones = [[[1.0, 0.5]], [[1.0, 0.5]], [[1.0, 0.5]]]
    ((applied, residual, velocity),) = combined(ones, correction=0.5)
    assert applied.tolist() == [[0, 0], [2, 0], [0, 2]]
    assert residual.tolist() == [1.5, 0.125] and velocity.tolist() == [1.0, 0.0]


def test_a_worker_clips_its_own_mean_gradient_at_its_part_of_the_norm():
    """Norms of 5, 0.5, 0 and 5 over 2 frames; 4 workers may have 3 / 2 each: 0.6 of 2.5."""
    rows = [[[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-4.0, 3.0]]]
    ranks = combined(rows, frames=2, local_clip=3.0)
    for row, (applied, residual, _) in zip(rows[0], ranks, strict=True):
        share = 0.6 if max(map(abs, row)) > 1 else 1.0
        sent = np.sign(row) * 2 * (np.abs(row) * share > 2)
        np.testing.assert_allclose(residual, np.array(row) * share - sent, rtol=1e-6)
        assert applied.tolist() == ranks[0][0].tolist() == [[-2.0, 2.0]]


def test_the_norm_is_that_of_all_shards():
    """Shards (3,) and (4,) of one worker: at most 1, so a fifth of each."""
    ranks = combined([[[3.0], [4.0]]], partition=2, local_clip=1.0)
    assert [one[1].tolist() for one in ranks] == [[pytest.approx(0.6)], [pytest.approx(0.8)]]


def test_at_a_sync_a_workers_momentum_starts_anew_and_an_optimizers_beside_it_is_told():
    gtc, told = Threshold(tau=50.0, correction=0.5), []

    def body(comm):
        block = Bmuf(steps=2)
        after = lambda r: told.append((r.steps, bool(r.gradient.local.velocity.any())))  # noqa: E731
        replica = tiny.trained(comm, gradient=gtc, block=block, gtc_group=1, steps=3, after=after)
        return replica.replica.gradient.warnings()

    for momentum, tau in spawn((0, 0), body):  # the one does not hide the other
        assert "give --optimizer sgd" in momentum and "nothing is learned" in tau
    assert sorted(told) == [(1, True)] * 2 + [(2, False)] * 2 + [(3, True)] * 2
    assert not optim.make("sgd").states
