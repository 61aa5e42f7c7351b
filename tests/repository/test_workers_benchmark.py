"""benchmarks/workers: workers of one process take the steps of ranks, and a whole quick table."""

import numpy as np
import pytest

from benchmarks.workers.fleet import Fleet
from refimpl import nn
from refimpl.methods.step import Replica
from refimpl.nn.flat import Layout
from refimpl.numerics.rng import stream
from refimpl.run.config import Recipe, Run
from refimpl.tasks.batches import Batches
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn


class Points:
    """Examples of a toy problem: which of three coordinates is the largest."""

    count, inputs = 100, 6

    def take(self, index, x, y):
        for row, number in enumerate(index.tolist()):
            x[row] = stream(0, "point", number).normal(size=self.inputs)
        y[:] = x[:, :3].argmax(axis=1)


def network(seed):
    net = nn.Sequential(nn.Affine("a", 6, 9, seed), nn.Relu(), nn.Affine("b", 9, 3, seed))
    net.plan(8, np.float32)
    return net


RECIPE = Recipe(
    "toy", epochs=3, lr=0.5, batch=4, momentum=0.5, clip=0.3, schedule="exponential", warmup=0.5
)


def run_of(strategy, **methods):
    return Run("toy", RECIPE, strategy=strategy, methods=methods, seed=5)


def by_ranks(run, world, steps):
    """Train on ranks that are threads, as the trainer does; return each rank's final model."""

    def body(comm):
        net, family = network(run.seed), run.family()
        groups = Groups.split(comm, run.grid(world))
        chosen = family, run.optimizer(), run.chosen(), run.step_options()
        replica = Replica(net, groups, *chosen)
        batches = Batches(Points.count, RECIPE.batch, world, run.seed)
        schedule, per_epoch = run.schedule(), batches.steps_per_epoch
        x, y = np.zeros((RECIPE.batch, 6), np.float32), np.zeros(RECIPE.batch, np.int64)

        for step in range(steps):

            def batch(microstep, step=step):
                Points().take(batches.index(step, comm.rank), x, y)
                return x, y

            rate = schedule.rate(step, per_epoch)
            replica.step(batch, rate)
            if (step + 1) % per_epoch == 0 or step + 1 == steps:
                replica.end_block(rate)
        with replica.evaluated():
            return replica.partition.weights().copy()

    return spawn((0,) * world, body)


CASES = {
    "serial": (1, run_of("serial"), 0),
    "ddp": (5, run_of("ddp"), 0),
    "gtc": (5, run_of("gtc", tau=0.5), 0),
    "gtc after a warm start": (5, run_of("gtc", tau=0.5, gtc_warmup=3), 3),
    "bmuf": (3, run_of("bmuf", block_steps=3), 0),
    "bmuf, plain mean": (3, run_of("bmuf", block_steps=3, block_momentum=0.0), 0),
    "hybrid": (6, run_of("gtc-bmuf", gtc_group=2, tau=0.5, block_steps=3), 0),
}


@pytest.mark.parametrize("world, run, warm", CASES.values(), ids=CASES)
def test_workers_in_one_process_end_with_the_bits_of_ranks(tmp_path, world, run, warm):
    steps = 11
    fleet = Fleet(run, world, network(run.seed), Points(), warm_start=warm)
    for _ in range(7):
        fleet.advance()
    fleet.save(tmp_path / "state.npz")  # and what goes on from there goes on the same way
    fleet = Fleet(run, world, network(run.seed), Points(), warm_start=warm)
    fleet.load(tmp_path / "state.npz")
    for _ in range(steps - 7):
        fleet.advance()
    mine = fleet.finish()
    begun = np.zeros_like(mine)
    for unit, place in zip(fleet.network.units, Layout(fleet.network.units).units, strict=True):
        unit.initialise(begun[place.place])
    assert np.abs(mine - begun).max() > 0.1
    for theirs in by_ranks(run, world, steps):
        np.testing.assert_array_equal(mine, theirs)
