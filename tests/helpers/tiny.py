"""A tiny network trained for a few steps, on whatever communicator a test has."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from refimpl import collectives, nn, optim
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.numerics.rng import stream
from refimpl.state.digest import Digest
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

WIDTHS = (13, 11, 7, 5)  # units of 154, 84 and 40 numbers: some are padded for p = 3, 4, 6 and 8
BATCH = 4
MICRO_BATCHES = 24  # of a step: what worlds of 1, 2, 3, 4, 6 and 8 ranks can share

# Between the norms that occur: a gradient that is clipped in every step shows no error that is a
# factor.  tests/methods/test_training.py sees to it.
CLIP = 0.45


class Trained(NamedTuple):
    """What a rank has after training."""

    replica: Replica
    parameters: dict[str, Any]
    digest: str


class Bare:
    """A unit of parameters with given shapes, and nothing else."""

    def __init__(self, name, *shapes):
        self.name = name
        self.parameters = tuple(
            nn.Parameter(f"p{i}", shape, nn.Initial("zeros")) for i, shape in enumerate(shapes)
        )


class Shift(nn.Layer):
    """y = x + b, b one number: a unit smaller than most p; and a parameter of no elements."""

    def __init__(self, name, width, elements=1):
        self.name, self.inputs, self.outputs = name, width, width
        self.parameters = (
            nn.Parameter("none", (0, 3), nn.Initial("zeros")),
            nn.Parameter("shift", (elements,), nn.Initial("zeros")),
        )

    def plan(self, batch, inputs, dtype, in_place=False):
        self.y = np.zeros((batch, inputs), dtype)
        return inputs

    def bind(self, parameters, gradients=None):
        self.b, self.db = parameters, gradients

    def initialise(self, parameters):
        parameters[:] = 0.25

    def forward(self, x):
        return np.add(x, self.b.sum(), out=self.y[: len(x)])

    def backward(self, dy, input_gradient=True):
        self.db[:] = dy.sum()
        return dy


def crumbs(dtype=np.float32):
    """A network with units of one number and of none."""
    net = nn.Sequential(
        Shift("empty", 13, elements=0),
        nn.Affine("first", 13, 5, seed=1),
        Shift("one", 5),
        nn.Tanh(),
        Shift("two", 5, elements=2),
        Shift("nothing", 5, elements=0),
        nn.Affine("last", 5, 5, seed=1),
    )
    net.plan(BATCH, dtype)
    return net


def network(dtype=np.float32):
    layers = []
    for i, (inputs, outputs) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
        layers += [nn.Affine(f"layer{i}", inputs, outputs, seed=1), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    net.plan(BATCH, dtype)
    return net


def network_layout(partition):
    """Return where its parameters lie."""
    return nn.Layout(network().units, partition)


def micro_batch(step, number, dtype=np.float32):
    rng = stream(0, "micro-batch", step, number)
    return rng.normal(size=(BATCH, WIDTHS[0])).astype(dtype), rng.integers(0, WIDTHS[-1], BATCH)


def trained(
    comm,
    *,
    partition=1,
    gtc_group=None,
    stage=0,
    prefetch=False,
    every_microstep=False,
    gradient=None,
    block=None,
    methods=None,
    grid=None,
    algorithm="ring",
    optimizer="momentum",
    micro_batches=MICRO_BATCHES,
    steps=10,
    network=network,
    before=lambda replica: None,
    after=lambda replica: None,
    first=0,
    end=True,
    counts=None,
    **options,
):
    """Train on all ranks of comm, end the last block; options as `StepOptions`.

    ``gradient`` and ``block`` are methods; without one, the exact gradient and no block axis.
    ``methods`` and ``grid`` stand for all of these, and for the lengths and the stage.
    ``before(replica)`` is called at the start, ``after(replica)`` after every step, of which
    ``first`` is the first; without ``end`` the last block stays open.  ``counts``: the rows of
    each of a step's micro-batches, where they are not all `BATCH`.
    """
    grid = grid or Grid.cut(comm.size, partition, gtc_group)
    microsteps, rest = divmod(micro_batches, comm.size)
    assert rest == 0
    given = {"batch": BATCH, "microsteps": microsteps, "exact": True, "clip": CLIP}
    methods = methods or Methods(
        Sharded(stage, prefetch) if stage else Whole(),
        gradient or Exact(every_microstep=every_microstep),
        block,
    )
    groups = Groups.split(comm, grid)
    replica = Replica(
        network(),
        groups,
        collectives.get(algorithm) if isinstance(algorithm, str) else algorithm,
        optim.make(optimizer, weight_decay=0.01),
        methods,
        StepOptions(**given | options),
    )
    before(replica)
    own = grid.place(comm.rank).block
    share = micro_batches // grid.blocks
    frames = None if counts is None else sum(counts[own * share : (own + 1) * share])
    for step in range(first, steps):

        def batches(m, step=step):
            number = grid.micro_batch(comm.rank, m, microsteps)
            x, y = micro_batch(step, number)
            return (x, y) if counts is None else (x[: counts[number]], y[: counts[number]])

        replica.step(batches, 0.05, frames)
        after(replica)
    if end:
        replica.end_block(lr=0.05)
    with replica.evaluated() if end else nullcontext():
        parameters = {name: value.copy() for name, value in replica.partition.each()}
    groups.free()
    digest = Digest()
    list(digest.over(parameters.items()))
    return Trained(replica, parameters, digest.text())
