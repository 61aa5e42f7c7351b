"""The places of parameters in the flat vector, for every number of ranks."""

import numpy as np
import pytest
from tiny import Bare

from refimpl import nn

SIZES = [
    [],
    [Bare("empty")],
    [Bare("none", (0, 3))],
    [Bare("one", (1,))],
    [Bare("a", (2, 3), (3,)), Bare("none", (0,)), Bare("b", (1,)), Bare("c", (4, 5), (5,))],
]


def tiles(slices, length):
    """Do the slices cover range(length), in order and without gaps?"""
    start = 0
    for piece in slices:
        if piece.start != start or piece.stop < start:
            return False
        start = piece.stop
    return start == length


@pytest.mark.parametrize("p", range(1, 10))
@pytest.mark.parametrize("units", SIZES)
def test_units_tile_the_full_vector_and_pieces_tile_units_and_shards(units, p):
    layout = nn.Layout(units, p)
    assert layout.padded == layout.shard * p and layout.size <= layout.padded
    assert layout.size == sum(unit.size for unit in layout.units)
    assert tiles([unit.place for unit in layout.units], layout.padded)
    assert tiles([unit.shard_place for unit in layout.units], layout.shard)
    for unit in layout.units:
        assert unit.padded == unit.piece * p and unit.size <= unit.padded < unit.size + p
        pieces = [unit.piece_place(rank) for rank in range(p)]
        shifted = [slice(s.start - unit.place.start, s.stop - unit.place.start) for s in pieces]
        assert tiles(shifted, unit.padded)
        assert tiles([tensor.place for tensor in unit.tensors], unit.size)


@pytest.mark.parametrize("p", range(1, 10))
def test_named_parameters_are_views_of_the_same_names_for_every_partition(p):
    layout = nn.Layout(SIZES[-1], p)
    full = np.arange(layout.padded, dtype=np.float64)
    got = nn.named(layout, full)
    assert list(got) == list(layout.parameters)
    assert list(got) == ["a.p0", "a.p1", "none.p0", "b.p0", "c.p0", "c.p1"]
    assert got["a.p0"].tolist() == [[0, 1, 2], [3, 4, 5]]
    for name, (number, offset, shape) in layout.parameters.items():
        assert got[name].shape == shape
        start = layout.units[number].place.start + offset
        assert full[start : start + got[name].size].tolist() == got[name].ravel().tolist()
    got["b.p0"][:] = -1
    assert (full == -1).sum() == 1, "they are views"
