"""Micro-batches of unequal length: sums over all frames, and one division."""

import numpy as np
import pytest
import rows
import tiny
from checks import serial
from loopback import spawn
from rows import EVERY, ran

from refimpl.methods.step import Replica
from refimpl.methods.strategies import STRATEGIES

COUNTS = (4, 1, 0, 3, 2, 4, 0, 2)  # of a step's micro-batches; the last rank of some has none


def model(**options):
    """Return all parameters after two steps on one rank, without clipping."""
    found = serial(steps=2, clip=None, **options).parameters
    return np.concatenate([value.ravel() for value in found.values()])


BY_FRAMES = [
    rows.usual(row, ("block_mean", "frames"))
    for row in STRATEGIES.values()
    if "block_mean" in row.options() and row.partition is not rows.SERIAL.partition
]


@pytest.mark.parametrize("case", EVERY + BY_FRAMES, ids=str)
def test_a_row_trains_on_unequal_micro_batches_as_serial_or_its_twin(case):
    counts = (COUNTS * 2)[: 2 * case.world]
    one = {rank.trained.digest for rank in rows.run(case, counts=counts)}
    assert len(one) == 1
    share = {"micro_batches": 2 * case.world, "counts": counts}
    if case.exact:
        assert one == {serial(steps=rows.STEPS, **share).digest}
    layout = tiny.network_layout(case.grid.partition)
    if case.twin is not None and case.methods.gradient.keeps_bits(layout):
        assert one == {rank.trained.digest for rank in ran(*case.twin, **share)}


@pytest.mark.parametrize("exact", [False, True])
def test_equal_counts_that_are_told_change_no_bit(exact):
    full = {"exact": exact, "micro_batches": 4}
    told = model(counts=(tiny.BATCH,) * 4, **full)
    assert told.tobytes() == model(**full).tobytes()


def test_every_frame_counts_the_same_wherever_it_is(monkeypatch):
    """The frames of micro-batches of 4, 1 and 3, in micro-batches of 2, 2 and 4."""
    want = model(counts=(4, 1, 3), micro_batches=3)
    right = tiny.micro_batch

    def cut_elsewhere(step, number):
        parts = [right(step, n) for n in range(3)]
        x, y = (
            np.concatenate([p[i][:c] for p, c in zip(parts, (4, 1, 3), strict=True)])
            for i in (0, 1)
        )
        start = (0, 2, 4)[number]
        return x[start:], y[start:]

    monkeypatch.setattr(tiny, "micro_batch", cut_elsewhere)
    serial.cache_clear()
    np.testing.assert_allclose(model(counts=(2, 2, 4), micro_batches=3), want, rtol=0, atol=1e-7)
    serial.cache_clear()


def test_a_short_micro_batch_of_which_nobody_tells_is_no_silent_mean(monkeypatch):
    right = Replica.step
    monkeypatch.setattr(
        Replica, "step", lambda self, batches, lr, frames: right(self, batches, lr)
    )
    with pytest.raises(AssertionError, match="say how many frames count"):
        spawn((0,), lambda comm: tiny.trained(comm, micro_batches=2, steps=1, counts=(4, 3)))
