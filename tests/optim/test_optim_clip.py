"""Clipping by a norm that is known."""

import math

import numpy as np
import pytest

from refimpl.optim import clip
from refimpl.support.errors import UserError


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_an_error(norm):
    with pytest.raises(UserError, match="training diverges"):
        clip.coefficient(norm, 1.0)


def test_clipped_gradient_has_at_most_the_stated_norm_and_a_short_one_is_left_alone():
    g = np.array([3.0, 4.0])
    for most in (5 / 7, 5.0, 15.0):
        factor = clip.coefficient(5.0, most)
        assert factor == min(1.0, most / 5.0)
        assert math.isclose(math.hypot(*(g * factor)), min(5.0, most), rel_tol=1e-12)
    assert clip.coefficient(0.0, 1.0) == 1.0
