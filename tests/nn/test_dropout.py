"""Dropout: what is left out is named by micro-batch, so that it does not depend on the cluster."""

import numpy as np
import pytest
from loopback import spawn
from tiny import BATCH, WIDTHS, trained

from refimpl import nn
from refimpl.support.errors import UserError


def dropped(rate=0.4):
    """The tests' tiny network with two layers that draw, of which one writes over its input."""
    a, b, c, d = WIDTHS
    net = nn.Sequential(
        nn.Dropout("spoken", rate, 1),
        nn.Affine("layer0", a, b, 1),
        nn.Dropout("between", rate, 1),
        nn.Tanh(),
        nn.Affine("layer1", b, c, 1),
        nn.Affine("layer2", c, d, 1),
    )
    net.plan(BATCH, np.float32)
    return net


def digest(ranks, **how):
    told = {"network": dropped, "micro_batches": 4, "steps": 3} | how
    return {each.digest for each in spawn((0,) * ranks, lambda comm: trained(comm, **told))}


def test_ranks_leave_out_what_one_rank_would():
    """And no step, no micro-batch and no layer leaves out what another does."""
    alone = digest(1)
    assert digest(4) == digest(2) == alone
    assert digest(4, partition=4, stage=3) == digest(4, partition=2, stage=3) == alone
    assert digest(1, network=lambda: dropped(0.3)) != alone
    layer = nn.Dropout("a", 0.5, seed=3)
    layer.plan(8, 50, np.float32)
    x = np.ones((8, 50), np.float32)
    names = [nn.MicroBatch(step, number) for step in (0, 1) for number in (0, 1)]
    drawn = [layer.train(x, name).copy() for name in names]
    other = nn.Dropout("b", 0.5, seed=3)
    other.plan(8, 50, np.float32)
    drawn.append(other.train(x, names[0]))
    assert len({one.tobytes() for one in drawn}) == len(drawn)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_stays_and_gradients_pass_where_values_did(dtype):
    layer = nn.Dropout("a", 0.25, seed=1)
    layer.plan(200, 100, dtype)
    x = np.full((200, 100), 3, dtype)
    y = layer.train(x, nn.MicroBatch(2, 5)).copy()
    assert set(np.unique(y)) == {0, x.dtype.type(3) * x.dtype.type(1 / 0.75)}
    assert abs(np.mean(y == 0) - 0.25) < 0.01  # of 20,000: a standard deviation is 0.003
    dx = layer.backward(np.ones_like(x))
    assert ((dx > 0) == (y > 0)).all() and np.allclose(dx * 3, y)
    assert (layer.forward(x) == x).all() and layer.forward(x) is not x
    single = nn.Dropout("a", 0.25, seed=1)
    single.plan(200, 100, np.float32)
    left = single.train(x.astype(np.float32), nn.MicroBatch(2, 5)) == 0
    assert (left == (y == 0)).all()


def test_what_drops_everything_and_names_given_twice_are_refused():
    for rate in (1, -0.1, "a", float("nan")):
        with pytest.raises(UserError, match=r"layer 'd' drops a share of .*: a number from 0 up"):
            nn.Dropout("d", rate, 1)
    affine = nn.Affine("d", 2, 2, 1)
    with pytest.raises(UserError, match="two layers are named 'd'"):
        nn.Sequential(affine, nn.Dropout("d", 0.5, 1))
