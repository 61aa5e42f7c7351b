"""Solutions to the exercises of docs/gtc.md."""

import numpy as np

from refimpl.methods.gradient.gtc import exchange, threshold
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.numerics.rng import stream


def sent(words, tau, n):
    """Return what words say, as a vector."""
    values = np.zeros(n, np.float32)
    values[threshold.indices(words)] = tau * threshold.signs(words)
    return values


def exercise_1():
    """Sent and owed are what was computed, to the bit: quarters are added without rounding."""
    rng, applied, computed = stream(0, "exercise"), np.zeros(50, "f4"), np.zeros(50, "f4")
    residual = np.zeros(50, "f4")
    for _ in range(20):
        gradient = (rng.integers(-20, 21, 50) / 4).astype("f4")
        words, residual = threshold.plain(residual, gradient, tau=2.0)
        applied += sent(words, 2.0, 50)
        computed += gradient
    assert np.array_equal(applied + residual, computed) and np.any(residual)


def exercise_2():
    """Half as many messages of twice the size; what arrives is late by no more than tau."""
    entries, gradient = {}, np.full(1, 0.25, "f4")
    for tau in (1.0, 2.0):
        residual, entries[tau] = np.zeros(1, "f4"), 0
        for _ in range(64):  # 16 in all
            words, residual = threshold.plain(residual, gradient, tau)
            entries[tau] += len(words)
        assert 16 - tau <= entries[tau] * tau < 16
    assert entries == {1.0: 15, 2.0: 7}
    # With the gradient doubled as well, nothing changes but the unit.
    rng = stream(0, "doubled").normal(size=100).astype("f4")
    once, twice = (threshold.plain(np.zeros(100, "f4"), a * rng, a * 1.0) for a in (1, 2))
    assert np.array_equal(once[0], twice[0]) and np.array_equal(2 * once[1], twice[1])


def exercise_3():
    """(g - 1) 4 d P bytes against 2 (g - 1) P / (8 g): GTC wins below d = 1 / (16 g)."""
    n, nodes = 1_048_576, (0,) * 8
    edge, bits = n // (16 * 8), onebit.cost(n, nodes).sent_by(0)["intra"].bytes
    for entries, wins in ((edge - 8, True), (edge + 8, False)):
        lengths = [24 + 4 * entries] * 8
        assert (exchange.cost(lengths, nodes).sent_by(0)["intra"].bytes < bits) == wins


def exercise_4():
    """+a is sent, so -a is owed: the value swings around zero for ever, and GTC never sends it."""
    gradient, owed = np.array([0.0, 4.0]), np.zeros(2)
    for swing in (-2, 2, -2, 2):
        _, owed = onebit.plain(owed + gradient)
        assert owed.tolist() == [swing, 2]
    assert len(threshold.plain(np.zeros(2), gradient, tau=1.0)[0]) == 1
