"""The numbers of a preset that are fitted, and the model with them filled in.

Three at most.  F, the speed of a rank, is what a run reached that hides everything behind
compute.  The latency alpha of a ring step, and the overlap w, of a run that is split in q calls
per unit, follow from two published points: with C the compute of a step and G the communication,

    T(n) = C + G0(n) + alpha G1(n) - w C

is linear in both.  Only q alpha is identified, and it is an effective number: it holds whatever
else grows with the number of ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.published.quantities import Preset, Published, Run
from refimpl.collectives.cost import Link, Links
from refimpl.methods.partition.memory import Bytes
from refimpl.plan.model import Cluster, Method, Model, Split, predict, tflops, transformer


class Fitted(NamedTuple):
    """F in operations per second, alpha in seconds, w; ``error`` is the worst relative miss."""

    flops: float
    latency: float
    overlap: float
    error: float


def model(preset: Preset) -> Model:
    """Return the network of a preset, 2 bytes per parameter and gradient, the rest state."""
    return Model(
        transformer(int(preset.layers.value), int(preset.hidden.value)),
        rows=preset.batch.value * preset.sequence.value,
        operations=preset.operations.value,
        size=Bytes(2, 2, preset.state.value - 4),
    )


def cluster(preset: Preset, ranks: int, flops: float, inter_alpha: float) -> Cluster:
    """Return the cluster of a preset, with this many ranks; gamma is 0: GPUs add for nothing."""
    links = Links(
        intra=Link(preset.intra_alpha.value, 1 / preset.intra_bandwidth.value),
        inter=Link(inter_alpha, 1 / preset.inter_bandwidth.value),
    )
    return Cluster(ranks, int(preset.ranks_per_node.value), flops, links, preset.call.value)


def method(preset: Preset, run: Run, ranks: int, overlap: float) -> Method:
    """Return what a run does on this many ranks."""
    return Method(
        partition=int(preset.partition.value) if run.group else ranks,
        microsteps=preset.microsteps_on(ranks),
        family=run.family,
        calls=1 if run.coalesced else int(preset.calls.value),
        overlap=overlap if run.overlap is None else run.overlap,
        every_microstep=run.every_microstep,
        gathers_only=run.gathers_only,
    )


def evaluate(preset: Preset, run: Run, ranks: int, fitted: Fitted) -> tuple[Split, float]:
    """Return the times of a run's step, and its TFLOPS per rank."""
    alpha = preset.inter_alpha.value if run.coalesced else fitted.latency
    network, how = model(preset), method(preset, run, ranks, fitted.overlap)
    split = predict(network, cluster(preset, ranks, fitted.flops, alpha), how)
    assert split is not None, f"{run.family} collectives cannot run with {how}"
    return split, tflops(network, how, split.step)


def fit(preset: Preset) -> Fitted:
    """Return the fitted numbers of a preset: the two points' least squares, 0 <= w <= 1.

    With two points and two unknowns the fit is exact, unless w would leave its range; then w is
    at the end of it and alpha fits the relative errors as well as it can.
    """
    flops = preset.speed.value if preset.speed else preset.speed_from.tflops * 1e12
    if preset.like is not None:
        source = fit(preset.like)
        return Fitted(flops, source.latency, source.overlap, 0.0)

    run = preset.run(preset.fit_to[0].run)
    rows = [_linear(preset, run, point, flops) for point in preset.fit_to]
    target, fixed, slope, compute = np.array(rows).T
    weight = 1 / target
    both = np.stack([slope * weight, -compute * weight], axis=1)
    latency, overlap = np.linalg.lstsq(both, (target - fixed) * weight, rcond=None)[0]
    if not 0 <= overlap <= 1:
        overlap = min(max(overlap, 0.0), 1.0)
        rest = (target - fixed + overlap * compute) * weight
        latency = (slope * weight) @ rest / ((slope * weight) @ (slope * weight))
    found = Fitted(flops, max(float(latency), 0.0), float(overlap), 0.0)
    errors = [
        abs(evaluate(preset, run, point.ranks, found)[1] / point.tflops - 1)
        for point in preset.fit_to
    ]
    return found._replace(error=max(errors))


def _linear(
    preset: Preset, run: Run, point: Published, flops: float
) -> tuple[float, float, float, float]:
    """Return T, C + G0, G1 and C of one published point."""

    def split(latency: float) -> Split:
        return evaluate(preset, run, point.ranks, Fitted(flops, latency, 0.0, 0.0))[0]

    # Where a message between nodes takes longer than one inside, the step is linear in alpha.
    low, high = 1e-5, 3e-5
    slope = (split(high).step - split(low).step) / (high - low)
    network, how = model(preset), method(preset, run, point.ranks, 0.0)
    seconds = tflops(network, how, 1.0) / point.tflops
    return seconds, split(low).step - low * slope, slope, split(low).compute
