"""Axes to try alone: n numbers instead of a network, one group instead of a grid."""

from contextlib import nullcontext

import numpy as np

from refimpl import collectives
from refimpl.methods.protocol import Context
from refimpl.nn.flat import one_unit
from refimpl.world.events import Events
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid


class Alone:
    """Stands for a communicator of one rank: nothing is sent."""

    size, rank, nodes, members = 1, 0, (0,), (0,)

    def __init__(self):
        self.events = Events(rank=0)

    def scratch(self, n, dtype, slot=0):
        return np.empty(n, dtype)

    def purpose(self, purpose):
        return nullcontext()


def context(
    n, dtype=np.float32, *, gradient=None, partition=None, block=None, layout=None, **given
):
    """Return what a method is built from: n numbers in all, groups of one where none is given."""
    alone = Alone()
    gradient, partition, block = (group or alone for group in (gradient, partition, block))
    groups = Groups(Grid(1, 1, 1), gradient, partition, gradient, block, gradient)
    layout = layout or one_unit(n, partition.size)
    return Context(groups, collectives.get("ring"), layout, np.dtype(dtype), **given)


def combine(axis, gradient):
    """Combine a float gradient in place, by way of fixed point where the axis adds exactly."""
    if axis.fixed is None:
        given = gradient
    else:
        given = np.zeros(gradient.size, np.int64)
        axis.fixed.encode(gradient, given)
    gradient[:] = axis.combine(given)
