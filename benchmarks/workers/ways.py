"""Two ways to have many workers on one machine: ranks as threads, and one after the other.

The same bits (a test holds them equal), not the same time: threads pass each other messages, and
every rank decodes what all sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

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
    after: Callable[[], None] | None = None,
) -> list[np.ndarray]:
    """Train on ranks that are threads, as the trainer does; return the model of each (n,).

    ``network(seed)`` and ``examples()`` are made by every rank for itself.  ``after`` is called
    when all have taken a step.
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
            if after is not None:
                comm.barrier()
                if comm.rank == 0:
                    after()
        with replica.evaluated():
            return replica.partition.weights().copy()

    return spawn((0,) * world, body)


def measured(desk: Desk, workers: tuple[int, ...], steps: int = 4) -> str:
    """Return a table of frames per second of processor time, without a run's first and last step.

    After the last one models that are apart are averaged.
    """
    size, train = desk.size, desk.task.train
    offsets = train.offsets[:501]  # enough for a step, and little for every rank to hold

    def examples() -> Frames:
        one = Frames(train.features[: offsets[-1]], offsets, train.context)
        one.labels = train.labels[: offsets[-1]]
        return one

    rows = []
    for n in workers:
        for method in METHODS[1:]:
            desk.heed("nothing is measured")
            run = replace(size.start(method), workers=n).run()
            clocks: tuple[list[float], list[float]] = ([], [])

            def tick(clock: list[float]) -> None:
                clock.append(time.process_time())

            after = partial(tick, clocks[0])
            by_ranks(run, n, desk.network, examples, steps + 2, after)
            fleet = Fleet(run, n, desk.network(run.seed), examples())
            for _ in range(1 + steps):
                fleet.advance()
                tick(clocks[1])
            frames = n * size.batch * steps
            pace = [f"{frames / (clock[steps] - clock[0]):,.0f}" for clock in clocks]
            rows.append([str(n), f"`{method}`", *pace])
    return markdown(["workers", "method", "threads", "one after the other"], rows)
