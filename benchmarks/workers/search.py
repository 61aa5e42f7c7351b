"""The trials for one method and number of workers: one setting at a time, on dev.

From a start, each setting in turn climbs its ladder as long as the frame error rate on dev falls:
first upwards, and if the first step up is none to the better, downwards.  After the last setting
the first has its turn again.  The search ends when so many different trials were made, or when a
whole turn changed nothing.  What is tried follows from the results alone, so a search that was
stopped goes on, with its files, as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.workers.jobs import Job

# Steps of a setting.  A learning rate is doubled or halved.
LADDERS: dict[str, Sequence[float]] = {
    "momentum": (0.0, 0.5, 0.9),
    "clip": (0.0, 2.0, 0.5, 0.125),
    "warm": (0.0, 0.05, 0.2),
    "tau": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
}


def settings(method: str) -> tuple[str, ...]:
    """Return what is searched for a method, in the order of turns.

    >>> settings("ddp"), settings("gtc")
    (('lr', 'momentum', 'clip'), ('lr', 'tau', 'momentum', 'clip', 'warm'))
    """
    tau = ("tau",) if "gtc" in method else ()
    warm = ("warm",) if method not in ("serial", "ddp") else ()
    return ("lr", *tau, "momentum", "clip", *warm)


def neighbour(job: Job, setting: str, way: int) -> Job | None:
    """Return the job with one setting a step up (+1) or down (-1) its ladder; None at an end.

    With another momentum m the rate keeps lr / (1 - m).
    """
    if setting == "lr":
        return replace(job, lr=job.lr * 2.0**way)
    ladder = LADDERS[setting]
    place = ladder.index(getattr(job, setting)) + way
    if not 0 <= place < len(ladder):
        return None
    if setting == "momentum":
        lr = float(f"{job.lr * (1 - ladder[place]) / (1 - job.momentum):.3g}")
        job = replace(job, lr=lr)
    return replace(job, **{setting: ladder[place]})


def search(
    start: Job, trials: int, error: Callable[[Job], float], turns: Sequence[str] | None = None
) -> tuple[Job, list[tuple[Job, float]]]:
    """Return the best of so many trials, and all of them in order.

    >>> best, tried = search(Job("ddp", 2, 8, 1, 0, lr=1.0), 5, lambda job: abs(job.lr - 4))
    >>> best.lr, [job.lr for job, _ in tried]
    (4.0, [1.0, 2.0, 4.0, 8.0, 0.8])
    """
    tried: dict[Job, float] = {}

    def tell(job: Job | None) -> float:
        if job is None or (job not in tried and len(tried) == trials):
            return float("inf")
        if job not in tried:
            tried[job] = error(job)
        return tried[job]

    best, least = start, tell(start)
    moved = True
    while moved and len(tried) < trials:
        moved = False
        for setting in turns or settings(start.method):
            for way in (+1, -1):
                before = best
                while (found := tell(job := neighbour(best, setting, way))) < least:
                    assert job is not None
                    best, least, moved = job, found, True
                if best is not before:
                    break  # it fell on this side: the other one is where it came from
    return best, list(tried.items())
