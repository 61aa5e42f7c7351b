"""The preset of the published speed-ups as text; `benchmarks.published.speedups` computes it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.published.interspeech2019 import INTERSPEECH2019, SOURCES
from benchmarks.published.pieces import hanging, inputs, reading, sources
from benchmarks.published.speedups import (
    FITTED_TO,
    METHODS,
    PUBLISHED,
    Preset,
    check_ranks,
    data,
    fit,
    rows,
    shapes,
    status,
    vary,
)
from refimpl.support.text import table

PRESETS = {INTERSPEECH2019.name: INTERSPEECH2019}
LEFT_OUT = (
    "reading data, the optimizer's and the filter's time, copies and additions of messages, "
    "switches between nodes, messages hidden behind compute"
)


def output(preset: Preset, ranks: Sequence[int] | None, as_json: bool) -> str:
    """Return what ``refimpl plan --preset`` prints; refuses ranks that the nodes do not divide."""
    ranks = sorted(set(ranks or preset.ranks))
    check_ranks(preset, ranks)
    if as_json:
        return json.dumps(data(preset, ranks), indent=1)
    c, (method, n) = fit(preset), FITTED_TO
    fitted = hanging(
        f"  C    {c * 1e3:.1f} ms    ",
        f"computing of a worker's step; to {method} on {n}: {PUBLISHED[method][n]:g}x (authors)",
    )
    used = [q.source for q in preset.quantities()] + ["authors"]
    return "\n\n".join(
        [
            f"{preset.name}: {preset.title}",
            *inputs(preset.quantities(), LEFT_OUT),
            f"FITTED\n{fitted}",
            _results(preset, ranks, c),
            _shapes(),
            _sensitivity(preset),
            reading(preset.reading),
            sources(SOURCES, used),
        ]
    )


def _results(preset: Preset, ranks: Sequence[int], c: float) -> str:
    lines = []
    for method, n, one, speed in rows(preset, ranks, c):
        said = PUBLISHED.get(method, {}).get(n)
        times = (one.waiting * c, one.encode, one.exchange, one.decode, one.models)
        total = c + sum(times)
        beside = [f"{said:g}", f"{speed / said - 1:+.0%}"] if said else ["", ""]
        cells = [f"{1e3 * seconds:.2f}" for seconds in (c, *times, total)]
        lines.append([method, status(method, n), str(n), *cells, f"{speed:.1f}", *beside])
    head = "method,,workers,compute,waiting,encode,exchange,decode,models,step,speed-up"
    return "\n".join(
        [
            "RESULTS: milliseconds of a step; speed-up over one worker, of frames",
            table([*head.split(","), "published", "miss"], lines, left=2, indent=2),
            "  exchange: gradients; models: a sync's share of a step",
            "  waiting: for the slowest, m(n) sigma C",
        ]
    )


def _shapes() -> str:
    lines = []
    for method, speeds in PUBLISHED.items():
        costs = [f"{n / speed:.2f}" for n, speed in speeds.items()]
        lines.append([method, "n / published speed-up", "", *costs, *([""] * len(speeds))])
        for one in shapes():
            if one.method == method:
                costs = [f"{n / one.at[n]:.2f}" for n in speeds]
                faster = [f"{one.at[n]:.1f}" for n in speeds]
                fixed = ", ".join(str(n) for n in one.fixed)
                lines.append([method, f"  {one.words}", fixed, *costs, *faster])
    columns = [f"T/C {n}" for n in PUBLISHED["gtc"]] + [f"x {n}" for n in PUBLISHED["gtc"]]
    return "\n".join(
        [
            "SHAPES: T / C = n / speed-up, and curves through it (no link and no GPU goes in)",
            table(["method", "curve", "fitted to", *columns], lines, left=2, indent=2),
        ]
    )


def _sensitivity(preset: Preset) -> str:
    lines = []
    for one in vary(preset):
        cells = [one.label, f"{one.value}{'*' if one.base else ' '}"]
        if one.c is None:
            lines.append([*cells, "none", *([""] * (2 * len(METHODS) + 1))])
            continue
        for method in METHODS:
            cells += [f"{one.speedups[method][n]:.1f}" for n in (64, 128)]
        cells.insert(2, f"{1e3 * one.c:.1f}")
        lines.append([*cells, "yes" if one.falls else "no"])
    head = ["varied", "value", "C ms"]
    for method in METHODS:
        head += [f"{method} 64", "128"]
    return "\n".join(
        [
            "SENSITIVITY: speed-ups with one assumption changed at a time, C fitted again",
            table([*head, "gtc falls"], lines, indent=2),
            "  * the preset's own value    gtc falls: slower on 128 than on 32",
        ]
    )
