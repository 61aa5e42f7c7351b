"""Everything there is to do, in its order: searches, the table's runs, then suspected causes.

    serial                         search, then a run for each seed
    32, 64, 128 workers            ddp, gtc, bmuf, gtc-bmuf: the same, from what was best before
    the most workers, one seed     one thing changed at a time: what may explain the table

What is done follows from results alone, so that doing it, doing it together with other processes,
and reading what has been done are one function: what needs a result that is not there yet is left
out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmarks.workers.jobs import METHODS, Job, NotYet, Size
from benchmarks.workers.search import search

Trained = Callable[[Job, bool], dict[str, Any]]
"""A run and whether to score the test set -> what came of it."""


@dataclass
class Cell:
    """A method on some workers: the trials (job, dev error), the best, and its runs by seed."""

    method: str
    workers: int
    trials: list[tuple[Job, float]] = field(default_factory=list)
    best: Job | None = None
    by_seed: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs that are over, in the order of seeds."""
        return [run for _, run in sorted(self.by_seed.items())]


class Cause(NamedTuple):
    """A run in which one thing is another than in the table, and what it is compared with.

    ``serial``: the run of one worker on as many frames.
    """

    what: str
    job: Job
    run: dict[str, Any]
    table: dict[str, Any]
    serial: dict[str, Any]


@dataclass
class Book:
    """What there is: the table's cells, then causes; ``whole`` once nothing is missing."""

    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    causes: list[Cause] = field(default_factory=list)
    whole: bool = False


def frames_planned(size: Size, epoch: int) -> int:
    """Return the frames of everything, if no search ends early; ``epoch``: frames of one."""
    cells = 1 + (len(METHODS) - 1) * len(size.workers)
    runs = max(size.seeds.values()) + (len(METHODS) - 1) * sum(size.seeds.values())
    many = {
        (m, max(size.workers)): Cell(m, max(size.workers), best=size.start(m)) for m in METHODS
    }
    extra = size.epochs * 2  # serial, twice the frames
    for _, job, searched in _changes(size, many):
        extra += job.epochs + size.trial_epochs * size.cause_trials * searched
    return epoch * (cells * size.trials * size.trial_epochs + runs * size.epochs + extra)


def everything(size: Size, trained: Trained, after: Callable[[Book], None]) -> Book:
    """Do, or read, all that can be; call ``after`` with the book after each cell and cause."""
    book = Book(whole=True)
    for n in (1, *size.workers):
        for method in METHODS:
            if (method == "serial") == (n == 1):
                book.whole &= _cell(size, book, method, n, trained)
                after(book)
    for what, job, searched in _changes(size, book.cells):
        try:
            book.causes.append(_cause(size, book, what, job, searched, trained))
        except NotYet:
            book.whole = False
        after(book)
    return book


def _dev_error(trained: Trained) -> Callable[[Job], float]:
    def error(job: Job) -> float:
        found = trained(job, False)
        return found["dev"]["frame_error_rate"] if "dev" in found else float("inf")

    return error


def _cell(size: Size, book: Book, method: str, n: int, trained: Trained) -> bool:
    """Do, or read, one cell; return whether it is whole."""
    cells = [cell for cell in book.cells.values() if cell.method == method]
    cell = book.cells[method, n] = Cell(method, n)
    start = size.start(method)
    if cells:
        if not cells[-1].best:
            return False
        start = replace(cells[-1].best, workers=n)
    try:
        cell.best, cell.trials = search(start, size.trials, _dev_error(trained))
    except NotYet:
        return False
    seeds = range(size.seeds.get(n, max(size.seeds.values())))
    for seed in seeds:
        with contextlib.suppress(NotYet):
            job = replace(cell.best, epochs=size.epochs, seed=seed)
            cell.by_seed[seed] = trained(job, True)
    return len(cell.by_seed) == len(seeds)


def _cause(size: Size, book: Book, what: str, job: Job, searched: bool, trained: Trained) -> Cause:
    """Return what becomes of one run of a method when one thing is changed."""
    alone, cell = book.cells["serial", 1], book.cells[job.method, job.workers]
    if 0 not in alone.by_seed or 0 not in cell.by_seed:
        raise NotYet(what)
    if searched:  # another batch or filter has another rate
        trial = replace(job, epochs=size.trial_epochs, seed=size.search_seed)
        best, _ = search(trial, size.cause_trials, _dev_error(trained), turns=("lr",))
        job = replace(best, epochs=job.epochs, seed=job.seed)
    serial = alone.by_seed[0]
    if job.epochs != size.epochs:
        assert alone.best
        serial = trained(replace(alone.best, epochs=job.epochs, seed=0), True)
    return Cause(what, job, trained(job, True), cell.by_seed[0], serial)


def _changes(size: Size, cells: dict[tuple[str, int], Cell]) -> Iterator[tuple[str, Job, bool]]:
    """Yield what is changed, the changed job, and whether its rate is searched again.

    What takes longest comes last: twice the frames, then small batches, with `ddp` last.
    """
    n = max(size.workers)
    share = n // min(size.workers)
    jobs = [
        (method, replace(best, workers=n, epochs=size.epochs, seed=0))
        for method in METHODS[1:]
        if (best := cells[method, n].best)
    ]
    for method, job in jobs:
        if job.clip:
            yield "no clip", replace(job, clip=0.0), False
        else:
            yield "clip 0.5", replace(job, clip=0.5), False
        if method != "ddp":
            if job.warm:
                yield "no warm start", replace(job, warm=0.0), False
            else:
                yield "warm start 10%", replace(job, warm=0.1), False
        if "gtc" in method and job.tau != 8:
            yield "tau 8", replace(job, tau=8.0), False
        if "bmuf" in method:
            yield "eta 0: plain means", replace(job, block_momentum=0.0), True
            yield "blocks of a fifth", replace(job, block_steps=job.block_steps // 5), False
    for _, job in jobs:
        yield "twice the frames", replace(job, epochs=2 * size.epochs), False
    for _, job in sorted(jobs, key=lambda pair: pair[0] == "ddp"):
        few = replace(job, batch=job.batch // share, tau=job.tau / share)
        yield f"sum constant: {few.batch} frames a worker", few, True
