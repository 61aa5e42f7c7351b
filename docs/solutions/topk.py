"""Solutions to the exercises of docs/topk.md."""

import numpy as np

from refimpl import collectives
from refimpl.methods.gradient.topk import exchange
from refimpl.methods.gradient.topk.message import Chunks, largest
from refimpl.nn.flat import one_unit
from refimpl.numerics.rng import stream


def chunks(n, length, most):
    """Return the chunks of a vector of n values."""
    return Chunks(one_unit(n), 0, length, most, two_bit=False, dtype=np.dtype("f4"))


def send(residual, cut):
    """Take out of the residual what is sent, and return that as a vector."""
    message = np.empty(cut.message_bytes, np.uint8)
    cut.encode(residual, message)
    sent = np.zeros_like(residual)
    index, values = cut.decode(message)
    sent[index] = values
    return sent


def exercise_1():
    """With decay 1 all is sent or owed; with 1/2 a step forgets half of what was owed."""
    for decay in (1.0, 0.5):
        rng, cut = stream(0, "exercise"), chunks(12, length=4, most=1)
        sent, computed, forgotten = (np.zeros(12, "f4") for _ in range(3))
        residual = np.zeros(12, "f4")
        for _ in range(8):
            gradient = rng.integers(-8, 9, 12).astype("f4")
            forgotten += (1 - decay) * residual
            residual *= np.float32(decay)
            residual += gradient
            computed += gradient
            sent += send(residual, cut)
        assert np.array_equal(sent + residual + forgotten, computed)
        assert np.any(forgotten) == (decay < 1)


def exercise_2():
    """Of the whole vector 9 and 8 would go; of two chunks each sends one, and 8 waits."""
    x = np.array([9, 8, 0, 0, 1, 0, 0, 0], "f4")
    assert largest(x.reshape(1, 8), 2).ravel().tolist() == [0, 1]
    residual, cut = x.copy(), chunks(8, length=4, most=1)
    assert send(residual, cut).tolist() == [9, 0, 0, 0, 1, 0, 0, 0]
    assert send(residual, cut).tolist() == [0, 8, 0, 0, 0, 0, 0, 0]


def exercise_3():
    """(g - 1) 6 P m/c bytes against 2 (g - 1)/g 4 P: below m/c = 4 / (3 g)."""
    n, g = 98_304, 8
    dense = collectives.get("ring").cost("allreduce", n, (0,) * g).sent_by(0)["intra"].bytes
    sent = {
        most: exchange.cost(chunks(n, 96, most).message_bytes, (0,) * g).sent_by(0)["intra"].bytes
        for most in (15, 16, 17)
    }
    assert sent[15] < dense == sent[16] < sent[17]  # 16/96 = 4 / (3 g)
