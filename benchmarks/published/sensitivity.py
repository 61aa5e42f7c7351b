"""How far a preset's result hangs on each assumption: one at a time is given other values.

Where a quantity of the preset changes, latency and overlap are fitted again to the same published
numbers, as somebody with that assumption would have done; the miss of that fit is shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from benchmarks.published.calibrate import Fitted, evaluate, fit, model
from benchmarks.published.quantities import Preset, Variation
from refimpl.plan.model import Method, memory


class Varied(NamedTuple):
    """One assumption at one value, what is fitted then, and the TFLOPS of the shown runs.

    ``base``: the value is the preset's own.  ``states``: bytes of model states per rank of the
    last shown run.  ``tflops[run]``: on the fewest and the most ranks.
    """

    label: str
    value: float
    base: bool
    fitted: Fitted
    states: float
    fits: bool
    tflops: dict[str, tuple[float, float]]


def vary(preset: Preset) -> list[Varied]:
    """Return a row for every value of every variation, on the preset's own numbers of ranks."""
    base = fit(preset)
    return [
        _row(preset, base, variation, value)
        for variation in preset.variations
        for value in variation.values
    ]


def _row(preset: Preset, base: Fitted, variation: Variation, value: float) -> Varied:
    changed, fitted, field = preset, base, variation.field
    if field == "latency":
        fitted = base._replace(latency=base.latency * value)
        own = value == 1
    elif field == "overlap":
        fitted = base._replace(overlap=value)
        own = False
    elif field == "hiding":
        runs = tuple(run._replace(overlap=value) if run.coalesced else run for run in preset.runs)
        changed = replace(preset, runs=runs)
        own = value == preset.hiding.value
    else:
        changed = preset.varied(field, value)
        fitted = fit(changed)
        own = value == getattr(preset, field).value
    ends = preset.ranks[0], preset.ranks[-1]
    tflops = {
        name: tuple(evaluate(changed, changed.run(name), n, fitted)[1] for n in ends)
        for name in preset.shown
    }
    last = changed.run(preset.shown[-1])
    p = int(changed.partition.value) if last.group else ends[0]
    kept = memory(model(changed), Method(p)).states
    return Varied(
        variation.label,
        value / variation.scale,
        own,
        fitted,
        kept,
        kept <= preset.memory.value,
        tflops,
    )
