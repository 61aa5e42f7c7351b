"""A preset's evaluation as text and as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.published.comparison import Evaluated, evaluate_preset
from benchmarks.published.pieces import hanging, inputs, reading, sources
from benchmarks.published.presets import SOURCES, get
from benchmarks.published.quantities import Preset
from benchmarks.published.sensitivity import Varied, vary
from benchmarks.published.speedup_text import PRESETS as SPEEDUPS
from benchmarks.published.speedup_text import output as speedup_output
from refimpl.support.text import table

LEFT_OUT = (
    "embeddings, the optimizer's time, copies and additions of messages, activations, and ranks "
    "that are not equally fast"
)


def output(name: str, ranks: Sequence[int] | None, as_json: bool) -> str:
    """Return what ``refimpl plan --preset`` prints.

    Raises
    ------
    UserError
        If there is no such preset, or it cannot run on these ranks.
    """
    if name in SPEEDUPS:
        return speedup_output(SPEEDUPS[name], ranks, as_json)
    evaluated = evaluate_preset(get(name), ranks)
    if as_json:
        return json.dumps(preset_data(evaluated), indent=1)
    return preset_text(evaluated)


def preset_text(evaluated: Evaluated) -> str:
    """Return a preset's evaluation as text."""
    preset = evaluated.preset
    return "\n\n".join(
        [
            f"{preset.name}: {preset.title}",
            *inputs(preset.quantities(), LEFT_OUT),
            _fitted(evaluated),
            _results(evaluated),
            _sensitivity(preset, vary(preset)),
            reading(preset.reading),
            _sources(preset),
        ]
    )


def _sources(preset: Preset) -> str:
    points = (*preset.published, *(preset.like or preset).fit_to)
    used = [q.source for q in preset.quantities()] + [point.source for point in points]
    return sources(SOURCES, [*used, *preset.reading])


def _fitted(evaluated: Evaluated) -> str:
    preset, fitted = evaluated.preset, evaluated.fitted
    source = preset.like or preset
    where = f"fitted in {preset.like.name}" if preset.like else "fitted"
    points = ", ".join(f"{p.text} on {p.ranks} ({p.source})" for p in source.fit_to)
    q = preset.calls.value
    rows = [
        (
            "q alpha",
            f"{fitted.latency * q * 1e6:.0f} us",
            f"latency of a ring step, ZeRO-3: alpha = {fitted.latency * 1e6:.1f} us if q = {q:g}; "
            f"{where} to zero3: {points}",
        ),
    ]
    if any(run.overlap is None for run in preset.runs):
        rows.append(("w", f"{fitted.overlap:.2f}", "overlap of ZeRO-3; from the same two numbers"))
    if preset.speed_from is not None:
        point = preset.speed_from
        rows.insert(
            0,
            (
                "F",
                f"{fitted.flops / 1e12:.1f} TFLOPS",
                f"speed of a GPU, all messages hidden; from {point.run} on {point.ranks}: "
                f"{point.text} ({point.source})",
            ),
        )
    lines = [hanging(f"  {name:<7}  {value:>12}    ", text) for name, value, text in rows]
    return "\n".join(["FITTED", *lines])


def _results(evaluated: Evaluated) -> str:
    rows, derived = [], {}
    for row in evaluated.rows:
        split, said = row.split, row.published
        words = ""
        if said is not None:
            words = said.text
            if said.kind != "published":
                words += " d"
                derived[said.text] = said.source
            if said.scaling:
                words += f", {said.scaling}"
        rows.append(
            [
                row.run.name,
                row.status,
                str(row.ranks),
                f"{split.step:.1f}",
                f"{split.compute:.1f}",
                f"{split.gather + split.reduce_scatter:.1f}",
                f"{split.hidden:.1f}",
                f"{split.second_hop:.2f}",
                f"{row.tflops:.1f}",
                f"{row.scaling:.1%}",
                f"{row.ratio:.2f}",
                words,
            ]
        )
    head = "run,,n,step s,compute,messages,hidden,hop 2,TFLOPS,scaling,ratio,published"
    growth = "weak scaling, M fixed" if evaluated.preset.microsteps else "global batch fixed"
    notes = [
        "messages: all-gathers and reduce-scatters, of which part is hidden behind compute",
        "scaling: TFLOPS over those on the fewest ranks    ratio: over zero3's on as many",
    ]
    if evaluated.preset.chosen:
        notes.append("conditional: nothing further is fitted, but it hangs on what was chosen")
    if derived:
        found = "; ".join(f"{text}: {source}" for text, source in derived.items())
        notes.append(f"d derived: {found}")
    return "\n".join(
        [
            f"RESULTS: seconds of a step, TFLOPS per GPU ({growth})",
            table(head.split(","), rows, left=2, indent=2),
            *(f"  {note}" for note in notes),
        ]
    )


def _sensitivity(preset: Preset, varied: Sequence[Varied]) -> str:
    first, last = preset.ranks[0], preset.ranks[-1]
    head = ["varied", "value", "q alpha us", "w", "fit misses"]
    for name in preset.shown:
        head += [f"{name} {first}", f"{last}", "scaling"]
    head.append("states GB")
    rows = []
    for row in varied:
        cells = [
            row.label,
            f"{row.value:g}{'*' if row.base else ' '}",
            f"{row.fitted.latency * preset.calls.value * 1e6:.0f}",
            f"{row.fitted.overlap:.2f}",
            f"{row.fitted.error:.0%}",
        ]
        for few, many in row.tflops.values():
            cells += [f"{few:.1f}", f"{many:.1f}", f"{many / few:.1%}"]
        rows.append([*cells, f"{row.states / 1e9:.1f}{' ' if row.fits else '!'}"])
    return (
        "SENSITIVITY: TFLOPS per GPU with one assumption changed at a time\n"
        + table(head, rows, indent=2)
        + "\n  * the preset's own value    ! more than the memory of a GPU\n"
        + "  b, M, p, Bx: fitted again to the same published numbers; alpha and w: set, not fitted"
    )


def preset_data(evaluated: Evaluated) -> dict[str, Any]:
    """Return the same as plain data, for ``--json``."""
    preset, fitted = evaluated.preset, evaluated.fitted
    return {
        "preset": preset.name,
        "title": preset.title,
        "inputs": [q._asdict() for q in preset.quantities()],
        "fitted": {
            "flops": fitted.flops,
            "latency": fitted.latency,
            "overlap": fitted.overlap,
            "error": fitted.error,
            "from": preset.like.name if preset.like else preset.name,
        },
        "rows": [
            {
                "run": row.run.name,
                "ranks": row.ranks,
                "status": row.status,
                "seconds": {"step": row.split.step, **row.split._asdict()},
                "tflops": row.tflops,
                "scaling": row.scaling,
                "ratio": row.ratio,
                "published": row.published._asdict() if row.published else None,
            }
            for row in evaluated.rows
        ],
        "sensitivity": [{**row._asdict(), "fitted": row.fitted._asdict()} for row in vary(preset)],
        "reading": list(preset.reading),
    }
