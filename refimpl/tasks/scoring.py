"""Scores of a classifier, the same for every number of ranks.

A split is cut into chunks of a fixed number of examples and rank r computes chunks r, r + n, ...
Each chunk's outputs thus come from the same matrix product whatever n is, errors are counted and
losses added as integers, so the scores do not depend on the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import small
from refimpl.tasks.protocol import Examples, Outputs
from refimpl.world.communicator import Communicator

CHUNK = 256
LOSS_UNIT = 2.0**-32


def chunks(count: int, rank: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield this rank's chunks of ``range(count)``; every rank gets equally many, last ones empty.

    >>> [chunk.size for chunk in chunks(600, rank=0, size=2)]
    [256, 88]
    >>> [chunk.size for chunk in chunks(600, rank=1, size=2)]
    [256, 0]
    """
    total = -(-count // CHUNK)
    for turn in range(-(-total // size)):
        start = (turn * size + rank) * CHUNK
        yield np.arange(min(start, count), min(start + CHUNK, count))


def cross_entropy(logits: np.ndarray, labels: NDArray[np.int64]) -> float:
    """Return the sum over rows of -log softmax(logits)[label], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]
    return float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - own))


def classification(examples: Examples, outputs: Outputs, comm: Communicator) -> dict[str, Any]:
    """Return ``loss`` (mean), ``frame_error_rate`` and ``frames`` of a split.  Collective.

    Outputs that are not finite give a loss that is not a number, and no error.
    """
    errors = loss = broken = 0
    for index in chunks(examples.count, comm.rank, comm.size):
        logits, labels = outputs(examples, index), examples.labels[index]
        if len(index):
            errors += int(np.count_nonzero(logits.argmax(axis=1) != labels))
            mine = cross_entropy(logits, labels) / LOSS_UNIT
            if math.isfinite(mine):
                loss += round(mine)
            else:
                broken += 1
    errors, loss, broken = small.summed(comm, (errors, loss, broken))
    count = max(examples.count, 1)
    return {
        "loss": math.nan if broken else loss * LOSS_UNIT / count,
        "frame_error_rate": errors / count,
        "frames": examples.count,
    }
