"""The tables of what there is, beside the published figures; intervals over utterances."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.workers.jobs import Size
from benchmarks.workers.work import Book, Cell
from refimpl.numerics.rng import stream

SOURCE = "Ladkat et al., Interspeech 2019, by the authors' blog post"
# Increase of the error rate over one processor, in per cent; None: "reduces", without a figure.
PUBLISHED: dict[tuple[str, int], float | None] = {
    ("gtc", 32): 1.4,
    ("bmuf", 32): 3.5,
    ("gtc-bmuf", 32): None,
    ("gtc", 64): 2.8,
    ("bmuf", 64): 8.9,
    ("gtc-bmuf", 64): 3.1,
    ("gtc", 128): 15.6,
    ("bmuf", 128): 9.6,
    ("gtc-bmuf", 128): 4.7,
}
KINDS = {"frames": ("wrong", "frames"), "words": ("errors", "words")}


class Increase(NamedTuple):
    """Per cent over the base, and the interval that holds 95 % of resampled test sets."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.1f} % [{self.low:+.1f}, {self.high:+.1f}]"


def rates(runs: Sequence[dict[str, Any]], kind: str) -> list[float]:
    """Return the test set's error rate of each run that has one, in per cent."""
    errors, out_of = KINDS[kind]
    ended = [run["test"] for run in runs if "test" in run]
    return [100 * test[errors] / test[out_of] for test in ended]


def increase(
    runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], kind: str, draws: int
) -> Increase | None:
    """Return the increase of runs' mean error rate over that of base; None if there is none yet.

    The interval is that of a paired bootstrap: utterances are drawn with replacement, the same
    ones for both, ``draws`` times; an utterance's errors are summed over the seeds.
    """
    errors = KINDS[kind][0]

    def per_utterance(some: Sequence[dict[str, Any]]) -> np.ndarray | None:
        ended = [run["test"]["utterances"][errors] for run in some if "test" in run]
        return np.mean(ended, axis=0) if ended else None

    mine, theirs = per_utterance(runs), per_utterance(base)
    if mine is None or theirs is None or not theirs.sum():
        return None
    picks = stream(0, "bootstrap").integers(len(mine), size=(draws, len(mine)))
    below = theirs[picks].sum(axis=1)
    ratio = mine[picks].sum(axis=1)[below > 0] / below[below > 0]
    low, high = np.quantile(100 * (ratio - 1), (0.025, 0.975))
    return Increase(100 * (mine.sum() / theirs.sum() - 1), float(low), float(high))


def _rate(runs: Sequence[dict[str, Any]], kind: str) -> str:
    found = rates(runs, kind)
    if not found:
        return "diverged" if runs else ""
    spread = f" ({statistics.stdev(found):.2f})" if len(found) > 1 else ""
    return f"{statistics.mean(found):.2f} %{spread}"


def _published(method: str, workers: int) -> str:
    if (method, workers) not in PUBLISHED:
        return ""
    figure = PUBLISHED[method, workers]
    return "reduced" if figure is None else f"+{figure} %"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines
    )


def errors(size: Size, book: Book) -> str:
    """Return the error column: each method and number of workers over one worker alone."""
    base = book.cells["serial", 1].runs if ("serial", 1) in book.cells else []
    rows = []
    for (method, n), cell in book.cells.items():
        beside = []
        for kind in KINDS:
            found = increase(cell.runs, base, kind, size.draws) if n > 1 else None
            beside += [_rate(cell.runs, kind), str(found or "")]
        seeds = str(len(cell.runs))
        rows.append([str(n), f"`{method}`", seeds, *beside, _published(method, n)])
    head = ["workers", "method", "seeds", "FER", "over serial", "WER", "over serial", "published"]
    return markdown(head, rows)


def searched(size: Size, book: Book) -> str:
    """Return what was found best for each method and number of workers."""
    rows = []
    for (method, n), cell in book.cells.items():
        if cell.best:
            least = min(error for _, error in cell.trials)
            trials = f"{len(cell.trials)}"
            best = [f"{100 * least:.2f} %", cell.best.told()]
            rows.append([str(n), f"`{method}`", trials, *best])
    return markdown(["workers", "method", "trials", "FER, dev", "best"], rows)


def causes(size: Size, book: Book) -> str:
    """Return what one change at a time does, one seed each."""
    rows = []
    for cause in book.causes:
        row = [str(cause.job.workers), f"`{cause.job.method}`", cause.what]
        row += [_rate([cause.table], "frames"), _rate([cause.run], "frames")]
        row += [str(increase([cause.run], [cause.serial], "frames", size.draws) or "")]
        row += [_rate([cause.run], "words"), f"{cause.job.lr:g}"]
        rows.append(row)
    head = [
        "workers",
        "method",
        "what is changed",
        "FER, table",
        "FER",
        "over serial",
        "WER",
        "lr",
    ]
    return markdown(head, rows)


def whole(size: Size, book: Book, hours: float) -> str:
    """Return all tables as one text; ``hours``: what all runs took."""
    every: list[Cell] = list(book.cells.values())
    frames = {run["frames"] for cell in every for run in cell.runs if "frames" in run}
    said = " and ".join(f"{count:,}" for count in sorted(frames)) or "no"
    parts = [
        f"Every run of the table has {said} frames, {size.batch} a worker and step. Published: "
        f"{SOURCE}. In brackets: the spread over seeds; in square brackets: 95 % of "
        f"{size.draws:,} draws of the test utterances. All of it took {hours:.1f} hours of one "
        "core.",
        errors(size, book),
        "What the search found:",
        searched(size, book),
    ]
    if book.causes:
        parts += ["One thing changed at a time, one seed:", causes(size, book)]
    return "\n\n".join(parts) + "\n"
