"""The published speed-ups of GTC, BMUF and their hybrid: what costs say, and what shape they have.

A worker computes C seconds a step.  With n workers on nodes of k, messages of refimpl's own
algorithms over published links, and c = 1 for one worker,

    T_ddp   = C (1 + sigma m(n))                                 + all-reduce(P)
    T_gtc   = C (1 + s m(n)) + encode + all-gather(n messages)   + n decode
    T_bmuf  = C (1 + sigma m(n) / sqrt(H))                       + all-reduce(P) / H
    T_both  = T_gtc of a group of g, waiting for n / g groups    + mean over groups / H

m(n): how many standard deviations the slowest of n normal times lies above their mean; sigma:
the standard deviation of a worker's step, as a share of C; H: the local steps of a block.  The
speed-up is n C / T, of frames.  C is fitted to one published number.

Beside that stands what needs no link and no GPU: T / C = n / speed-up, as published, and the
curves that go through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.published.quantities import Quantity
from refimpl import collectives
from refimpl.collectives.cost import Link, Links
from refimpl.methods.gradient.gtc.exchange import cost as exchange_cost
from refimpl.methods.gradient.gtc.header import HEADER_BYTES
from refimpl.support.errors import UserError
from refimpl.world.topology import Grid, Nodes

METHODS = ("ddp", "gtc", "bmuf", "gtc-bmuf")
PUBLISHED: dict[str, dict[int, float]] = {
    "gtc": {32: 26, 64: 17, 128: 11},
    "bmuf": {32: 36.6, 64: 57, 128: 80},
    "gtc-bmuf": {32: 31, 64: 42, 128: 97},
}
FITTED_TO = ("gtc", 32)


@dataclass(frozen=True)
class Preset:
    """The cluster and the run, every number with its provenance.  ``vary``: for sensitivity."""

    name: str
    title: str
    ranks: tuple[int, ...]
    block_steps: Quantity
    gpus: Quantity
    inter_bandwidth: Quantity
    inter_alpha: Quantity
    intra_bandwidth: Quantity
    intra_alpha: Quantity
    parameters: Quantity
    density: Quantity
    group: Quantity
    spread: Quantity
    memory: Quantity
    decoding: Quantity
    vary: tuple[tuple[str, str, tuple[float, ...], float], ...]
    reading: tuple[str, ...]

    def quantities(self) -> list[Quantity]:
        """Return every number that goes in, in order."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, Quantity)]

    def varied(self, field: str, value: float) -> Preset:
        """Return the preset with one quantity at another value."""
        return replace(self, **{field: getattr(self, field).at(value)})

    def links(self) -> Links:
        """Return what messages take."""
        return Links(
            Link(self.intra_alpha.value, 1 / self.intra_bandwidth.value),
            Link(self.inter_alpha.value, 1 / self.inter_bandwidth.value),
        )


class Step(NamedTuple):
    """Seconds of a step beside the C that a worker computes; ``models``: a sync's share."""

    waiting: float = 0.0  # in units of C
    encode: float = 0.0
    exchange: float = 0.0
    decode: float = 0.0
    models: float = 0.0

    @property
    def beside(self) -> float:
        """What does not go with C."""
        return self.encode + self.exchange + self.decode + self.models


@lru_cache(maxsize=64)
def slowest(n: int) -> tuple[float, float]:
    """Return mean and standard deviation of the largest of n standard normal numbers.

    >>> [round(value, 3) for n in (1, 2, 128) for value in slowest(n)]
    [0.0, 1.0, 0.564, 0.826, 2.595, 0.419]
    """
    x = np.linspace(-9, 9, 3601)
    below = np.array([(1 + math.erf(z / math.sqrt(2))) / 2 for z in x.tolist()]) ** n
    share, middle = np.diff(below), (x[1:] + x[:-1]) / 2
    mean = float((share * middle).sum())
    return mean, math.sqrt(float((share * middle**2).sum()) - mean**2)


def step(preset: Preset, method: str, n: int) -> Step:
    """Return what a step of a method takes on n workers beside computing."""
    if n == 1:
        return Step()
    links, p, h = preset.links(), 4 * int(preset.parameters.value), preset.block_steps.value
    k = int(preset.gpus.value)
    node = Nodes.of(n, min(k, n)).node
    ring, spread = collectives.get("ring"), preset.spread.value
    g = {"ddp": n, "gtc": n, "bmuf": 1, "gtc-bmuf": min(int(preset.group.value), n)}[method]
    grid = Grid.cut(n, 1, g)
    mean, deviation = slowest(g)
    waiting = spread * mean
    found = Step()
    if "gtc" in method:
        entries = preset.density.value * preset.parameters.value
        message = HEADER_BYTES + 4 * round(entries)
        gather = exchange_cost([message] * g, node[:g]).time(links)
        # The residual is read and written, the gradient read, the sum written; an entry moves a
        # sector of 32 bytes twice.
        memory = preset.memory.value
        each = preset.decoding.value + 64 * entries / memory
        found = Step(encode=4 * p / memory, exchange=gather, decode=g * each)
    elif method == "ddp":
        found = Step(exchange=ring.cost("allreduce", p, node, 1).time(links))
    if grid.blocks > 1:
        waiting += spread * deviation * slowest(grid.blocks)[0] / math.sqrt(h)
        part = ring.cost_of_groups("allreduce", p // g, grid.groups("block"), node, 1).time(links)
        if g > 1:
            part += ring.cost("allgather", p, node[:g], 1).time(links)
        found = found._replace(models=part / h)
    return found._replace(waiting=waiting)


def fit(preset: Preset) -> float:
    """Return C in seconds: GTC on 32 is as fast as published.

    Raises `UserError` if waiting alone takes longer.
    """
    method, n = FITTED_TO
    one = step(preset, method, n)
    rest = n / PUBLISHED[method][n] - 1 - one.waiting
    if rest <= 0:
        raise UserError(f"{one.waiting:.2f} C of waiting leave no time for messages")
    return one.beside / rest


def speedup(one: Step, n: int, c: float) -> float:
    """Return how many times faster than one worker n are."""
    return n * c / (c * (1 + one.waiting) + one.beside)


class Shape(NamedTuple):
    """A curve T / C, in words, and the published points that fix it; ``at``: n -> speed-up."""

    method: str
    words: str
    fixed: tuple[int, ...]
    at: dict[int, float]


def shapes() -> list[Shape]:
    """Return the curves through the published numbers: those that fit, and those that cannot."""

    def shape(method: str, words: str, fixed: Sequence[int], t: Callable[[int], float]) -> Shape:
        return Shape(method, words, tuple(fixed), {n: n / t(n) for n in PUBLISHED[method]})

    def through(method: str) -> tuple[float, float]:
        """Return n / speed-up on the fewest and the most."""
        few, *_, most = PUBLISHED[method]
        return few / PUBLISHED[method][few], most / PUBLISHED[method][most]

    few, most = 32, 128
    found = []
    low, high = through("gtc")
    power = math.log(high / low) / math.log(most / few)
    free = few / low ** (1 / power)
    for p, words in ((1, "1 + a n, n messages"), (2, "1 + a n^2, n messages to each of n")):
        a = (high - 1) / most**p
        found.append(shape("gtc", words, [most], lambda n, a=a, p=p: 1 + a * n**p))
    words = f"(n / {free:.0f})^{power:.2f}, nothing before {free:.0f}"
    found.append(shape("gtc", words, [few, most], lambda n: max(1.0, (n / free) ** power)))
    for method in ("bmuf", "gtc-bmuf"):
        low, high = through(method)
        b = (high - low) / (most - few)
        a = low - b * few
        words = f"{a:.2f} + n / {1 / b:.0f}"
        found.append(shape(method, words, [few, most], lambda n, a=a, b=b: a + b * n))
    return found


class Varied(NamedTuple):
    """An assumption at a value, C then, and speed-ups; ``falls``: GTC's on more workers."""

    label: str
    value: str
    base: bool
    c: float | None
    speedups: dict[str, dict[int, float]]

    @property
    def falls(self) -> bool:
        """Whether GTC is slower on 128 workers than on 32."""
        return self.speedups["gtc"][128] < self.speedups["gtc"][32]


def vary(preset: Preset) -> list[Varied]:
    """Return a row for every value of every assumption that is varied."""
    rows = []
    for label, field, values, scale in preset.vary:
        for value in values:
            changed = preset.varied(field, value)
            own = value == getattr(preset, field).value
            try:
                c = fit(changed)
            except UserError:
                rows.append(Varied(label, f"{value / scale:g}", own, None, {}))
                continue
            found = {
                m: {n: speedup(step(changed, m, n), n, c) for n in (32, 64, 128)} for m in METHODS
            }
            rows.append(Varied(label, f"{value / scale:g}", own, c, found))
    return rows


def rows(preset: Preset, ranks: Sequence[int], c: float) -> list[tuple[str, int, Step, float]]:
    """Return method, workers, the step and the speed-up."""
    found = []
    for method in METHODS:
        for n in ranks:
            one = step(preset, method, n)
            found.append((method, n, one, speedup(one, n, c)))
    return found


def status(method: str, n: int) -> str:
    """Return what a speed-up is; that of one worker is 1, and nothing of it is predicted."""
    return "fitted" if (method, n) == FITTED_TO else "predicted" if n > 1 else ""


def check_ranks(preset: Preset, ranks: Sequence[int]) -> None:
    """Refuse numbers of workers that groups and nodes do not divide; 1 is one worker."""
    unit = max(int(preset.group.value), int(preset.gpus.value))
    for n in ranks:
        if n != 1 and n % unit:
            raise UserError(
                f"preset {preset.name} cannot run on {n} ranks: its groups and nodes need 1 or a "
                f"multiple of {unit} (for example {unit},{2 * unit},{4 * unit})"
            )


def data(preset: Preset, ranks: Sequence[int]) -> dict[str, Any]:
    """Return everything as plain data; times are in seconds."""
    c = fit(preset)
    return {
        "preset": preset.name,
        "title": preset.title,
        "inputs": [q._asdict() for q in preset.quantities()],
        "fitted": {"compute_seconds": c, "to": list(FITTED_TO)},
        "rows": [
            {
                "method": method,
                "workers": n,
                **one._replace(waiting=c * one.waiting)._asdict(),
                "speedup": speed,
                "published": PUBLISHED.get(method, {}).get(n),
                "status": status(method, n),
            }
            for method, n, one, speed in rows(preset, ranks, c)
        ],
        "shapes": [one._asdict() for one in shapes()],
        "sensitivity": [one._asdict() for one in vary(preset)],
        "reading": list(preset.reading),
    }
