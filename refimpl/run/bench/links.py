"""alpha, beta and gamma of this cluster, measured on the ranks' own links in some 0.1 s."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from refimpl.collectives.auto import ASSUMED
from refimpl.collectives.cost import Link, Links
from refimpl.support import text

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

SIZES = tuple(1 << i for i in range(10, 23, 2))  # 1 KiB, 4 KiB, ..., 4 MiB
TURNS = 4  # that are timed at once: a single one is shorter than the skew of its begin


def measure(comm: Communicator, sizes: Sequence[int] = SIZES, repeats: int = 9) -> Links:
    """Measure both classes of link, gamma and the cores of a rank.  Collective.

    All ranks of a node turn a ring, then all ranks among their peers on the other nodes, as the
    algorithms do: what they take from each other is in the numbers.  alpha and beta fit the
    medians of all sizes, each size weighted by its own time so that the small ones count.  A class
    of link that the communicator does not have gets the other's numbers.  The result is the same
    on all ranks.
    """
    within, across = comm.levels()
    cores = _cores(comm)
    fitted = {}
    with comm.purpose("bench"):
        for link, ring in (("intra", within), ("inter", across)):
            if max(comm.allgather_object(ring.size)) > 1:
                times = [_turn(comm, ring, nbytes, repeats) for nbytes in sizes]
                fitted[link] = times
        gamma = _adding(comm, max(sizes) // 4, repeats) * cores
    found = {}
    if "intra" in fitted:
        found["intra"] = fit(sizes, [seconds * cores for seconds in fitted["intra"]])
    if "inter" in fitted:  # the ranks of a node share its link
        ranks = max(comm.allgather_object(within.size))
        found["inter"] = fit([ranks * nbytes for nbytes in sizes], fitted["inter"])
    one = found.get("intra") or found.get("inter") or Link(0.0, 0.0)
    links = Links(found.get("intra", one), found.get("inter", one), gamma, cores)
    return comm.bcast_object(links)


def table(links: Links) -> str:
    """Return the links as text: what is assumed without, and the options of `plan` with them."""
    rows = [
        [name, f"{number:.3g}", f"{assumed:.3g}"]
        for (name, number), assumed in zip(
            links.plain().items(), ASSUMED.plain().values(), strict=True
        )
    ]
    intra, inter = (f"{link.alpha:.3g},{link.beta:.3g}" for link in (links.intra, links.inter))
    told = text.table(["", "measured", "assumed"], rows, left=0)
    return f"{told}\n\nfor `plan`: --intra {intra} --inter {inter}"


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


def _cores(comm: Communicator) -> float:
    """Return how many cores a host has for each rank of the communicator, at most 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    mine = frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))
    everyones = comm.allgather_object((platform.node(), mine))
    hosts = {host for host, _ in everyones}
    ratios = []
    for host in hosts:
        allowed = [cores for name, cores in everyones if name == host]
        ratios.append(len(frozenset().union(*allowed)) / len(allowed))
    return min(1.0, *ratios)


def _turn(comm: Communicator, ring: Communicator, nbytes: int, repeats: int) -> float:
    """Return the median seconds of a step in which everybody sends to the right; equal on all."""
    out, arrived = np.ones(nbytes, np.uint8), np.empty(nbytes, np.uint8)
    right, left = (ring.rank + 1) % ring.size, (ring.rank - 1) % ring.size

    def turn() -> None:
        if ring.size > 1:
            for _ in range(TURNS):
                ring.Sendrecv(out, right, recvbuf=arrived, source=left)

    return _median(comm, turn, repeats) / TURNS


def _adding(comm: Communicator, nbytes: int, repeats: int) -> float:
    """Return the seconds per byte of adding what arrived, all ranks at once."""
    total, arrived = (np.ones(nbytes // 4, np.float32) for _ in range(2))

    def add() -> None:
        np.add(total, arrived, out=total)

    return _median(comm, add, repeats) / nbytes


def _median(comm: Communicator, work: Callable[[], None], repeats: int) -> float:
    """Return the median seconds that the slowest rank needs."""
    times = []
    for _ in range(repeats + 1):
        comm.barrier()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    everyones = comm.allgather_object(times[1:])
    return median(max(together) for together in zip(*everyones, strict=True))
