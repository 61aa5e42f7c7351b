"""A preset evaluated: what is fitted and what is predicted, beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.published.calibrate import Fitted, evaluate, fit
from benchmarks.published.quantities import Preset, Published, Run
from refimpl.plan.model import Split
from refimpl.support.errors import UserError


class Row(NamedTuple):
    """One run on n ranks.

    ``status``: ``fitted``, where the number went into the fit; ``what if``, where nobody published
    such a run; ``conditional``, where nothing further was fitted but quantities of the preset were
    chosen so that its published numbers are met; else ``predicted``.  ``scaling``: TFLOPS over
    those on the fewest ranks.  ``ratio``: TFLOPS over those of the run it is compared with, on as
    many ranks.
    """

    run: Run
    ranks: int
    status: str
    split: Split
    tflops: float
    scaling: float
    ratio: float
    published: Published | None


class Evaluated(NamedTuple):
    """A preset, its fitted numbers, and its rows."""

    preset: Preset
    fitted: Fitted
    rows: list[Row]


def check_ranks(preset: Preset, ranks: Sequence[int]) -> None:
    """Refuse numbers of ranks that the preset's groups and nodes do not divide.

    Raises
    ------
    UserError
        Naming the number, and numbers that would work.
    """
    groups = int(preset.partition.value) if any(run.group for run in preset.runs) else 1
    unit = max(groups, int(preset.ranks_per_node.value))
    for n in ranks:
        if n < 1 or n % unit:
            raise UserError(
                f"preset {preset.name} cannot run on {n} ranks: its groups and nodes need a "
                f"multiple of {unit} (for example {unit},{2 * unit},{4 * unit})"
            )


def evaluate_preset(preset: Preset, ranks: Sequence[int] | None = None) -> Evaluated:
    """Return the preset's fitted numbers and its rows, run by run, for each number of ranks."""
    ranks = sorted(set(ranks or preset.ranks))
    check_ranks(preset, ranks)
    fitted = fit(preset)
    found = {(run.name, n): evaluate(preset, run, n, fitted) for run in preset.runs for n in ranks}
    went_in = {(point.run, point.ranks) for point in preset.fit_to}
    if preset.speed_from is not None:
        went_in.add((preset.speed_from.run, preset.speed_from.ranks))
    said = {(point.run, point.ranks): point for point in preset.published}
    rows = []
    for run in preset.runs:
        beside = run.against or preset.runs[0].name
        for n in ranks:
            split, tflops = found[run.name, n]
            status = "conditional" if preset.chosen else "predicted"
            if (run.name, n) in went_in:
                status = "fitted"
            rows.append(
                Row(
                    run,
                    n,
                    "what if" if run.what_if else status,
                    split,
                    tflops,
                    tflops / found[run.name, ranks[0]][1],
                    tflops / found[beside, n][1],
                    said.get((run.name, n)),
                )
            )
    return Evaluated(preset, fitted, rows)
