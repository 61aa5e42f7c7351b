"""alpha and beta of the links of this cluster, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from refimpl.collectives.cost import Link, Links

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

SIZES = tuple(1 << i for i in range(10, 25, 2))  # 1 KiB, 4 KiB, ..., 16 MiB


def measure(comm: Communicator, sizes: Sequence[int] = SIZES, repeats: int = 9) -> Links:
    """Measure alpha and beta of both classes of link, and gamma.  Collective.

    Two ranks exchange messages both ways at once (as the algorithms do), while the others wait:
    ranks 0 and its first neighbour on the same node for ``intra``, 0 and the first rank of
    another node for ``inter``.  alpha and beta fit the medians of all sizes, each size weighted
    by its own time so that the small ones count.  The result is rank 0's, on all ranks.  A class
    of link that the communicator does not have gets the other's numbers.
    """
    same = [rank for rank in range(1, comm.size) if comm.nodes[rank] == comm.nodes[0]]
    other = [rank for rank in range(1, comm.size) if comm.nodes[rank] != comm.nodes[0]]
    fitted = {}
    with comm.purpose("bench"):
        for link, peers in (("intra", same), ("inter", other)):
            if peers:
                times = [_exchange(comm, peers[0], nbytes, repeats) for nbytes in sizes]
                fitted[link] = fit(sizes, times)
    found = fitted.get("intra") or fitted.get("inter") or Link(0.0, 0.0)
    gamma = _adding(max(sizes), repeats)
    links = Links(fitted.get("intra", found), fitted.get("inter", found), gamma)
    return comm.bcast_object(links)


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> Link:
    """Fit seconds = alpha + bytes beta, minimising relative errors; neither is negative.

    >>> link = fit([0, 1000, 100000], [2e-6, 3e-6, 1.02e-4])
    >>> round(link.alpha, 9), round(link.beta, 12)
    (2e-06, 1e-09)
    """
    weight = 1 / np.asarray(seconds)
    columns = np.stack([weight, np.asarray(sizes) * weight], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)
    return Link(max(float(alpha), 0.0), max(float(beta), 0.0))


def _exchange(comm: Communicator, peer: int, nbytes: int, repeats: int) -> float:
    """Return the median seconds of an exchange between rank 0 and a peer; 1.0 on other ranks."""
    out, arrived = np.ones(nbytes, np.uint8), np.empty(nbytes, np.uint8)
    times = []
    comm.barrier()
    if comm.rank in (0, peer):
        partner = peer if comm.rank == 0 else 0
        for _ in range(repeats + 1):
            start = time.perf_counter()
            comm.Sendrecv(out, partner, recvbuf=arrived, source=partner)
            times.append(time.perf_counter() - start)
    comm.barrier()
    return median(times[1:]) if times else 1.0


def _adding(nbytes: int, repeats: int) -> float:
    """Return the seconds per byte of adding what arrived."""
    total, arrived = (np.ones(nbytes // 4, np.float32) for _ in range(2))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        np.add(total, arrived, out=total)
        times.append(time.perf_counter() - start)
    return median(times[1:]) / nbytes
