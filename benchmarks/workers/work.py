"""Everything there is to do, in its order: searches, the table's runs, then suspected causes.

    serial                         search, then a run for each seed
    32, 64, 128 workers            ddp, gtc, bmuf, gtc-bmuf: the same, from what was best before
    the most workers, one seed     one thing changed at a time: what may explain the table

The order is fixed and what is done follows from results, so that doing it and reading what has
been done are one function: where a result is not there yet, reading ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmarks.workers.jobs import METHODS, Job, Size
from benchmarks.workers.search import search


class NotYet(Exception):
    """A result that is not there."""


Trained = Callable[[Job, bool], dict[str, Any]]
"""A run and whether to score the test set -> what came of it."""


@dataclass
class Cell:
    """A method on some workers: the trials (job, dev error), the best, and its runs by seed."""

    method: str
    workers: int
    trials: list[tuple[Job, float]] = field(default_factory=list)
    best: Job | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)


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
    """Do, or read, all of it; ``after`` is called with the book after each cell and cause."""
    book = Book()
    try:
        for n in (1, *size.workers):
            for method in METHODS:
                if (method == "serial") == (n == 1):
                    _cell(size, book, method, n, trained)
                    after(book)
        for cause in _causes(size, book, trained):
            book.causes.append(cause)
            after(book)
        book.whole = True
    except NotYet:
        pass
    return book


def _dev_error(trained: Trained) -> Callable[[Job], float]:
    def error(job: Job) -> float:
        found = trained(job, False)
        return found["dev"]["frame_error_rate"] if "dev" in found else float("inf")

    return error


def _cell(size: Size, book: Book, method: str, n: int, trained: Trained) -> None:
    cell = book.cells[method, n] = Cell(method, n)
    before = [one.best for one in book.cells.values() if one.method == method and one.best]
    start = replace(before[-1], workers=n) if before else size.start(method)
    best, cell.trials = search(start, size.trials, _dev_error(trained))
    cell.best = best
    for seed in range(size.seeds[n] if n > 1 else max(size.seeds.values())):
        cell.runs.append(trained(replace(best, epochs=size.epochs, seed=seed), True))


def _causes(size: Size, book: Book, trained: Trained) -> Iterator[Cause]:
    """Yield what becomes of one run of each method when one thing is changed."""
    alone = book.cells["serial", 1]
    assert alone.best
    for what, job, searched in _changes(size, book.cells):
        if searched:  # another batch or filter has another rate
            trial = replace(job, epochs=size.trial_epochs, seed=size.search_seed)
            best, _ = search(trial, size.cause_trials, _dev_error(trained), turns=("lr",))
            job = replace(best, epochs=job.epochs, seed=job.seed)
        serial = alone.runs[0]
        if job.epochs != size.epochs:
            serial = trained(replace(alone.best, epochs=job.epochs, seed=0), True)
        table = book.cells[job.method, job.workers].runs[0]
        yield Cause(what, job, trained(job, True), table, serial)


def _changes(size: Size, cells: dict[tuple[str, int], Cell]) -> Iterator[tuple[str, Job, bool]]:
    """Yield what is changed, the changed job, and whether its rate is searched again."""
    n = max(size.workers)
    share = n // min(size.workers)
    for method in METHODS[1:]:
        best = cells[method, n].best
        assert best
        job = replace(best, workers=n, epochs=size.epochs, seed=0)
        few = replace(job, batch=job.batch // share, tau=job.tau / share)
        yield f"sum constant: {few.batch} frames a worker", few, True
        yield "twice the frames", replace(job, epochs=2 * size.epochs), False
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
