"""All parameters of a network in one flat vector, padded and cut for p ranks.  Arithmetic only.

Every unit (a layer's parameters, side by side) is padded with zeros to a multiple of p and cut
into p equal pieces.  The *padded full vector* has the units end to end; the *shard* of rank r has
the r-th pieces of all units end to end.  For two units of 5 and 2 numbers::

    p = 1   full     a0 a1 a2 a3 a4 | b0 b1            shard of rank 0: all of it

    p = 2   full     a0 a1 a2 a3 a4 .. | b0 b1         .. is padding
            shard 0  a0 a1 a2          | b0
            shard 1  a3 a4 ..          | b1

    p = 3   full     a0 a1 a2 a3 a4 .. | b0 b1 ..
            shard 0  a0 a1             | b0
            shard 1  a2 a3             | b1
            shard 2  a4 ..             | ..

Padding starts at 0, its gradient is 0, and every optimizer here leaves it at 0.  Without the
padding, the numbers come in the same order for every p: the *canonical vector*, which
`refimpl.state.tree` joins and cuts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from refimpl.nn.init import Initial
from refimpl.nn.layers import Layer, Parameter


class Tensor(NamedTuple):
    """Where a parameter is within its unit, and its name in the network: ``hidden0.weight``."""

    name: str
    place: slice
    shape: tuple[int, ...]


class Unit(NamedTuple):
    """Where a unit is.

    ``size`` counts its numbers, ``padded`` those with padding, ``piece`` = padded / p.  ``place``
    is its slice of the padded full vector, ``shard_place`` that of its piece in a shard.
    """

    name: str
    size: int
    padded: int
    piece: int
    place: slice
    shard_place: slice
    tensors: tuple[Tensor, ...]

    def piece_place(self, rank: int) -> slice:
        """Return the slice of the padded full vector that is the piece of rank ``rank``."""
        start = self.place.start + rank * self.piece
        return slice(start, start + self.piece)


class Layout:
    """The places of all units and parameters of a network, cut for a partition group of p ranks.

    Parameters
    ----------
    units : iterable of Layer
        Anything with a ``name`` and ``parameters`` (each with ``name`` and ``shape``); a unit
        may be smaller than p, or empty.
    partition : int
        p.

    Attributes
    ----------
    units : tuple of Unit
        In order.
    parameters : dict
        Name of a parameter -> (its unit's number, its offset in the unit, its shape).
    size, padded, shard : int
        Numbers without padding; of the padded full vector; of one shard (padded / p).

    Examples
    --------
    >>> from refimpl.nn import Affine
    >>> layout = Layout([Affine("a", 1, 4, seed=1), Affine("b", 2, 1, seed=1)], partition=3)
    >>> layout.size, layout.padded, layout.shard
    (11, 12, 4)
    >>> layout.units[1].place, layout.units[1].shard_place, layout.units[1].piece_place(2)
    (slice(9, 12, None), slice(3, 4, None), slice(11, 12, None))
    >>> layout.parameters["b.bias"]
    (1, 2, (1,))
    """

    def __init__(self, units: Iterable[Layer], partition: int = 1) -> None:
        assert partition >= 1
        self.partition = partition
        self.size = self.padded = self.shard = 0
        self.parameters: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        placed = []
        for number, layer in enumerate(units):
            tensors, size = [], 0
            for parameter in layer.parameters:
                end = size + int(np.prod(parameter.shape, dtype=np.int64))
                name = f"{layer.name}.{parameter.name}"
                assert name not in self.parameters, f"two parameters are named {name}"
                self.parameters[name] = (number, size, parameter.shape)
                tensors.append(Tensor(name, slice(size, end), parameter.shape))
                size = end
            piece = -(-size // partition)
            placed.append(
                Unit(
                    layer.name,
                    size,
                    piece * partition,
                    piece,
                    slice(self.padded, self.padded + piece * partition),
                    slice(self.shard, self.shard + piece),
                    tuple(tensors),
                )
            )
            self.size += size
            self.padded += piece * partition
            self.shard += piece
        self.units = tuple(placed)


def one_unit(n: int, partition: int = 1) -> Layout:
    """Return the layout of n numbers in one unit.

    >>> one_unit(5, partition=2).shard
    3
    """
    return unit_of([(n,)], partition)


def unit_of(shapes: Iterable[tuple[int, ...]], partition: int = 1) -> Layout:
    """Return the layout of one unit whose parameters have these shapes.

    >>> unit_of([(3, 2), (2,)]).shard
    8
    """
    unit = Layer()
    unit.name = "all"
    unit.parameters = tuple(
        Parameter(f"all{i or ''}", shape, Initial("zeros")) for i, shape in enumerate(shapes)
    )
    return Layout([unit], partition)


def named(layout: Layout, full: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parameters as views of a padded full vector, by name, in canonical order."""
    assert full.shape == (layout.padded,)
    return {
        name: full[unit.place][place].reshape(shape)
        for unit in layout.units
        for name, place, shape in unit.tensors
    }
