"""The norm over shards: that of the whole vector, in messages that its cost states."""

import math

import numpy as np
import pytest
from counted import WORLDS, counted
from loopback import spawn

from refimpl.collectives import norm
from refimpl.numerics.norm import STRIP, exact_norm, exact_squares, float_norm, peak, square_sum
from refimpl.numerics.rng import stream
from refimpl.world.topology import Nodes


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("p, k", WORLDS)
def test_norm_is_that_of_all_shards_at_the_stated_cost(p, k, exact):
    g = stream(1, "gradient").normal(size=50_001).astype(np.float32)
    shards = np.array_split(g, p)
    work = np.zeros(STRIP)
    if exact:
        top, integers = peak(g), np.zeros(STRIP, np.int64)
        want = exact_norm(exact_squares(g, top, work, integers), top)
    else:
        want = float_norm(square_sum(shard, work) for shard in shards)
    assert math.isclose(want, np.linalg.norm(g.astype(np.float64)), rel_tol=1e-12)
    cost = norm.cost(Nodes.of(p, k).node, exact)
    for rank, (got, sent, purposes) in enumerate(
        counted(p, k, lambda comm: norm.GlobalNorm(exact)(comm, shards[comm.rank]))
    ):
        assert got == want
        assert sent == cost.sent_by(rank)
        assert purposes == ({norm.PURPOSE} if p > 1 else set())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norm_that_is_not_finite_is_so_on_all_ranks(bad, exact):
    def body(comm):
        g = np.ones(4, np.float32)
        g[2] = bad if comm.rank == 1 else 1
        return norm.GlobalNorm(exact)(comm, g)

    assert not any(math.isfinite(got) for got in spawn((0,) * 3, body))
