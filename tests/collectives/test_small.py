"""Small exchanges: every rank's few numbers on all ranks, in messages that their cost states."""

import math

import numpy as np
import pytest
from counted import WORLDS, counted
from loopback import spawn

from refimpl.collectives import small
from refimpl.numerics.exact import from_units, units
from refimpl.numerics.rng import stream
from refimpl.world.ledger import Count
from refimpl.world.topology import Nodes

SOME = np.dtype([("count", np.int32), ("loss", np.float64)])


@pytest.mark.parametrize("p, k", WORLDS)
@pytest.mark.parametrize("dtype, m", [(np.int64, 1), (np.float64, 3), (np.uint8, 5), (SOME, 2)])
def test_rows_of_all_ranks_are_everywhere_in_rank_order_at_the_stated_cost(p, k, dtype, m):
    want = np.stack([np.arange(m).astype(dtype)] * p)
    for rank in range(p):
        want[rank, 0] = np.array(rank + 1).astype(dtype)
    cost = small.cost(m, Nodes.of(p, k).node, np.dtype(dtype).itemsize)
    for rank, (rows, sent, purposes) in enumerate(
        counted(p, k, lambda comm: small.gathered(comm, want[comm.rank]))
    ):
        assert rows.dtype == dtype and np.array_equal(rows, want)
        assert sent == cost.sent_by(rank)
        assert sent["intra"] + sent["inter"] == Count(p - 1, (p - 1) * m * want.itemsize)
        assert purposes == ({"control"} if p > 1 else set())


@pytest.mark.parametrize("p, k", WORLDS)
def test_whole_numbers_of_any_size_are_summed_exactly_at_the_stated_cost(p, k):
    largest = units(np.finfo(np.float64).max)

    def mine(rank):
        return [rank, -(2**63) - rank, largest << 76, (-1) ** rank]

    want = [sum(column) for column in zip(*map(mine, range(p)), strict=True)]
    cost = small.cost(4 * small.WIDTH, Nodes.of(p, k).node, itemsize=1)
    for rank, (sums, sent, _) in enumerate(
        counted(p, k, lambda comm: small.summed(comm, mine(comm.rank)))
    ):
        assert sums == want
        assert sent == cost.sent_by(rank)


def test_a_sum_of_losses_is_that_of_all_at_once_wherever_they_are():
    draw = stream(0, "losses")
    losses = (draw.normal(size=300) * 10.0 ** draw.integers(-300, 290, 300)).tolist()
    losses += [5e-324, -1e308, 1e308, -0.0]
    for p in (1, 2, 3, 7):
        sums = spawn(
            (0,) * p,
            lambda comm: small.summed(comm, [sum(map(units, losses[comm.rank :: comm.size]))]),
        )
        assert [from_units(total) for (total,) in sums] == [math.fsum(losses)] * p
