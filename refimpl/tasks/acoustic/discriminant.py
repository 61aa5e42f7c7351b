r"""The linear discriminant: a first acoustic model, good enough to begin with.

Each state is a Gaussian in the bands of one frame, all with the same covariance S.  Then

    log p(s | x) = x . S^-1 m_s  -  m_s . S^-1 m_s / 2  +  log p(s)  +  constant of x

is linear in x: a network without hidden layers whose weights are not trained but computed from
the targets' means m_s and S.  Aligning with it, again and again, moves the equal divisions of a
flat start towards the sounds' true boundaries.  That matters since the large network, which
sees many frames at once, learns the flat start's mistakes too well to correct them later: see
docs/acoustic.md for how much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.protocol import Outputs
from refimpl.world.communicator import Communicator

ROWS_AT_ONCE = 4096  # bounds the work memory
RIDGE = 1e-3  # of the features' variance (1), added to S's: bands that never differ do no harm


def linear_discriminant(
    comm: Communicator, frames: Frames, priors: NDArray[np.float64]
) -> Outputs:
    """Return the discriminant of the frames' present targets as a function of frames.

    Computed on rank 0 in a fixed order and sent to all.  Collective.

    ``priors`` (classes,): p(s), none of them 0.
    """
    found = discriminant(frames.features, frames.labels, priors) if comm.rank == 0 else None
    weight, bias = comm.bcast_object(found, root=0)

    def outputs(some: Frames, index: NDArray[np.int64]) -> NDArray[np.float32]:
        return some.features[index] @ weight + bias

    return outputs


def discriminant(
    x: NDArray[np.float32], labels: NDArray[np.int64], priors: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (bands, classes) weights and (classes,) biases.

    With n_s frames in state s out of n, m_s their mean, and M the matrix of means,

        S = (sum over frames of x x^T - sum over s of n_s m_s m_s^T) / n + ridge I
    """
    classes, (n, bands) = len(priors), x.shape
    counts = np.bincount(labels, minlength=classes)
    sums = [np.bincount(labels, weights=x[:, band], minlength=classes) for band in range(bands)]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    squares = np.zeros((bands, bands))
    for first in range(0, n, ROWS_AT_ONCE):
        some = x[first : first + ROWS_AT_ONCE].astype(np.float64)
        squares += some.T @ some
    within = (squares - (means.T * counts) @ means) / n + RIDGE * np.eye(bands)
    weight = np.linalg.solve(within, means.T)
    bias = np.log(priors) - 0.5 * np.sum(weight * means.T, axis=0)
    return weight.astype(np.float32), bias.astype(np.float32)
