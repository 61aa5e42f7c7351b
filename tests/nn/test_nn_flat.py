"""The places of parameters in the flat vector, for every number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl import nn
from refimpl.nn import flat
from refimpl.nn.init import Initial


class Bare:
    """A unit of parameters with given shapes."""

    def __init__(self, name, *shapes):
        self.name = name
        self.parameters = tuple(
            nn.Parameter(f"p{i}", shape, Initial("zeros")) for i, shape in enumerate(shapes)
        )


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
@pytest.mark.parametrize("units", SIZES)
def test_padding_and_cutting_can_be_undone(units, p):
    layout = nn.Layout(units, p)
    canonical = np.arange(1, layout.size + 1, dtype=np.float32)
    full = flat.pad(layout, canonical)
    assert np.count_nonzero(full) == layout.size
    np.testing.assert_array_equal(flat.unpad(layout, full), canonical, strict=True)
    shards = [flat.cut(layout, full, rank) for rank in range(p)]
    np.testing.assert_array_equal(flat.join(layout, shards), full, strict=True)


@pytest.mark.parametrize("p", range(1, 10))
def test_named_parameters_are_the_same_for_every_partition(p):
    units = SIZES[-1]
    layout = nn.Layout(units, p)
    full = flat.pad(layout, np.arange(layout.size, dtype=np.float64))
    got = nn.named(layout, full)
    assert list(got) == list(layout.parameters)
    assert list(got) == ["a.p0", "a.p1", "none.p0", "b.p0", "c.p0", "c.p1"]
    assert got["a.p0"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert got["c.p1"].tolist() == [30, 31, 32, 33, 34]
    for name, (number, offset, shape) in layout.parameters.items():
        assert got[name].shape == shape
        start = layout.units[number].place.start + offset
        assert full[start : start + got[name].size].tolist() == got[name].ravel().tolist()
    got["b.p0"][:] = -1
    assert (full == -1).sum() == 1, "they are views"


def test_the_picture_in_the_text_is_right():
    units = [Bare("a", (5,)), Bare("b", (2,))]
    full = {p: flat.pad(nn.Layout(units, p), np.arange(1, 8)) for p in (1, 2, 3)}
    assert full[1].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert full[2].tolist() == [1, 2, 3, 4, 5, 0, 6, 7]
    cut = [flat.cut(nn.Layout(units, 2), full[2], rank).tolist() for rank in range(2)]
    assert cut == [[1, 2, 3, 6], [4, 5, 0, 7]]
    cut = [flat.cut(nn.Layout(units, 3), full[3], rank).tolist() for rank in range(3)]
    assert cut == [[1, 2, 6], [3, 4, 7], [5, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 17), st.integers(1, 17))
def test_any_layout_can_be_cut_again_for_another_partition(sizes, p, q):
    units = [Bare(f"u{i}", (size,)) for i, size in enumerate(sizes)]
    one, other = nn.Layout(units, p), nn.Layout(units, q)
    canonical = np.arange(1, one.size + 1, dtype=np.float64)
    shards = [flat.cut(one, flat.pad(one, canonical), rank) for rank in range(p)]
    moved = flat.pad(other, flat.unpad(one, flat.join(one, shards)))
    np.testing.assert_array_equal(flat.unpad(other, moved), canonical, strict=True)
