"""A number with its provenance, and what a preset is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

# How a number is known, from sure to unsure, and the heading under which it is printed.
KINDS = {
    "published": "published, as read in the source named",
    "derived": "derived from published numbers",
    "assumed": "assumed: not published, or not for this run",
    "chosen": "chosen: not published, and such that the published numbers are met",
    "recalled": "recalled from memory, unverified: do not cite",
}


class Quantity(NamedTuple):
    """A number, its unit, what it is, how it is known (`KINDS`) and from where."""

    value: float
    unit: str
    what: str
    kind: str
    source: str

    def at(self, value: float) -> Quantity:
        """Return the quantity at another value, for a sensitivity."""
        return self._replace(value=value, kind="assumed", source="varied")


class Published(NamedTuple):
    """What a source says that a run reached on n ranks: TFLOPS per rank, and the words for it.

    ``scaling``: the published efficiency, from the fewest ranks to these.
    """

    run: str
    ranks: int
    tflops: float
    text: str
    kind: str
    source: str
    scaling: str = ""


class Run(NamedTuple):
    """One method of a preset.

    ``group``: p is the preset's partition group, otherwise the world.  ``coalesced``: one call
    per unit, with the links' latency; otherwise the preset's number of calls, with the fitted
    latency.  ``overlap``: a number, None for the fitted one; ``gathers_only``: of gathers alone.
    ``what_if``: nobody published such a run.  ``against``: the run that it is compared with, by
    default the first.
    """

    name: str
    group: bool
    family: str
    coalesced: bool
    overlap: float | None
    every_microstep: bool = False
    what_if: bool = False
    against: str = ""
    gathers_only: bool = False


class Variation(NamedTuple):
    """An assumption and the values that the sensitivity table gives it.

    ``field``: a quantity of the preset, which is then fitted again; or ``latency`` (a factor),
    ``overlap`` (a value), which replace what was fitted; or ``hiding``, the overlap of the
    coalesced runs.  ``scale``: what the values are divided by to be printed.
    """

    label: str
    field: str
    values: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Preset:
    """A published cluster and the runs on it; see `benchmarks.published.presets`.

    ``speed_from``: the published point at which everything is hidden behind compute, so that it
    gives F; or ``speed``.  ``fit_to``: the points of a run that give latency and overlap; or
    ``like``: the preset whose fit is used.  ``microsteps`` or ``global_batch`` gives M.
    ``shown``: the runs of the sensitivity table.
    """

    name: str
    title: str
    ranks: tuple[int, ...]
    layers: Quantity
    hidden: Quantity
    sequence: Quantity
    batch: Quantity
    operations: Quantity
    state: Quantity
    partition: Quantity
    ranks_per_node: Quantity
    memory: Quantity
    inter_bandwidth: Quantity
    inter_alpha: Quantity
    intra_bandwidth: Quantity
    intra_alpha: Quantity
    call: Quantity
    calls: Quantity
    runs: tuple[Run, ...]
    published: tuple[Published, ...]
    variations: tuple[Variation, ...]
    shown: tuple[str, ...]
    reading: tuple[str, ...]
    microsteps: Quantity | None = None
    global_batch: Quantity | None = None
    hiding: Quantity | None = None
    speed: Quantity | None = None
    speed_from: Published | None = None
    fit_to: tuple[Published, ...] = ()
    like: Preset | None = None

    def quantities(self) -> list[Quantity]:
        """Return every number that goes in, in order."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, Quantity)]

    @property
    def chosen(self) -> bool:
        """Whether results hang on quantities that were chosen to give them."""
        return any(q.kind == "chosen" for q in self.quantities())

    def varied(self, field: str, value: float) -> Preset:
        """Return the preset with one quantity at another value."""
        return replace(self, **{field: getattr(self, field).at(value)})

    def microsteps_on(self, ranks: int) -> int:
        """Return M: given, or what makes the global batch on this many ranks."""
        if self.microsteps is not None:
            return int(self.microsteps.value)
        assert self.global_batch is not None
        return max(1, round(self.global_batch.value / (self.batch.value * ranks)))

    def run(self, name: str) -> Run:
        """Return a run by name."""
        return next(run for run in self.runs if run.name == name)
