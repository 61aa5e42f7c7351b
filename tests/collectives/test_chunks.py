"""Chunks tile the vector and differ in size by at most one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.collectives import chunks


@given(n=st.integers(0, 1000), p=st.integers(1, 64))
def test_chunks_tile_the_vector_longest_first_and_differ_by_at_most_one(n, p):
    sizes = np.diff(chunks.offsets(n, p)).tolist()
    assert len(sizes) == p
    assert sum(sizes) == n
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
    assert sizes.count(max(sizes)) == (n % p or p)


@pytest.mark.parametrize("cut", [[0, 4], [0, 2, 5], [1, 2, 4]])
def test_cut_points_that_do_not_tile_the_vector_are_refused(cut):
    with pytest.raises(AssertionError):
        chunks.slices(np.zeros(4), 2, cut)


def test_vectors_that_are_not_contiguous_are_refused():
    with pytest.raises(AssertionError):
        chunks.slices(np.zeros(8)[::2], 2)
    with pytest.raises(AssertionError):
        chunks.slices(np.zeros((2, 2)), 2)
