"""Two ways to have many workers on one machine: ranks as threads, and one after the other.

The same bits (a test holds them equal), not the same time: threads pass each other messages, and
every rank decodes what all sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.workers.desk import Desk
from benchmarks.workers.fleet import DTYPE, Fleet
from benchmarks.workers.jobs import METHODS
from benchmarks.workers.table import markdown
from refimpl import nn
from refimpl.methods.step import Replica
from refimpl.run.config import Run
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn


def by_ranks(
    run: Run,
    world: int,
    network: Callable[[int], nn.Sequential],
    examples: Callable[[], Examples],
    steps: int,
) -> list[np.ndarray]:
    """Train on ranks that are threads, as the trainer does; return the model of each (n,).

    ``network(seed)`` and ``examples()`` are made by every rank for itself.
    """

    def body(comm: Communicator) -> np.ndarray:
        groups, data, batch = Groups.split(comm, run.grid(world)), examples(), run.recipe.batch
        chosen = run.family(), run.optimizer(), run.chosen(), run.step_options()
        replica = Replica(network(run.seed), groups, *chosen)
        batches = Batches(data.count, batch, world, run.seed)
        schedule, per_epoch = run.schedule(), batches.steps_per_epoch
        x, y = np.zeros((batch, data.inputs), DTYPE), np.zeros(batch, np.int64)

        for step in range(steps):

            def taken(microstep: int, step: int = step) -> tuple[np.ndarray, np.ndarray]:
                data.take(batches.index(step, comm.rank), x, y)
                return x, y

            rate = schedule.rate(step, per_epoch)
            replica.step(taken, rate)
            if (step + 1) % per_epoch == 0 or step + 1 == steps:
                replica.end_block(rate)
        with replica.evaluated():
            return replica.partition.weights().copy()

    return spawn((0,) * world, body)


def measured(desk: Desk, workers: tuple[int, ...], steps: int = 4) -> str:
    """Return a table of frames per second of processor time; what goes before a step is left out.

    Each is trained for one step and for some more: the difference is what those take, ``?`` where
    it is lost in what else differs.
    """
    size, train = desk.size, desk.task.train
    offsets = train.offsets[:501]  # enough for a step, and little for every rank to hold

    def examples() -> Frames:
        one = Frames(train.features[: offsets[-1]], offsets, train.context)
        one.labels = train.labels[: offsets[-1]]
        return one

    def alone(run: Run, world: int, taken: int) -> None:
        fleet = Fleet(run, world, desk.network(run.seed), examples())
        for _ in range(taken):
            fleet.advance()

    def threads(run: Run, world: int, taken: int) -> None:
        by_ranks(run, world, desk.network, examples, taken)

    rows = []
    for n in workers:
        for method in METHODS[1:]:
            run = replace(size.start(method), workers=n).run()
            row = [str(n), f"`{method}`"]
            for way in (threads, alone):
                desk.heed("nothing is measured")
                clock = [time.process_time()]
                for taken in (1, 1 + steps):
                    way(run, n, taken)
                    clock.append(time.process_time())
                took = (clock[2] - clock[1]) - (clock[1] - clock[0])
                row.append(f"{n * size.batch * steps / took:,.0f}" if took > 0 else "?")
            rows.append(row)
    return markdown(["workers", "method", "threads", "one after the other"], rows)
