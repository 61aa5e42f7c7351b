"""Pictures of runs and comparisons, for those who have matplotlib (extra ``[plot]``)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refimpl.run.claim import SUMMARY
from refimpl.run.folder import CONFIG, METRICS, STEPS, RunFolder
from refimpl.run.timeline import DOING, Timeline
from refimpl.support import svg
from refimpl.support.errors import UserError, told
from refimpl.support.files import writing
from refimpl.tasks import table as tasks
from refimpl.tasks.protocol import Words


def require_matplotlib() -> None:
    """Raise a `UserError` with the remedy if matplotlib is not there."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError(
            "pictures need matplotlib: install the extra, pip install 'refimpl[plot]'"
        ) from None
    matplotlib.use("Agg")


# What methods tell: name -> where in a line it stands, the panel's title.
NUMBERS = {
    "density": ("compression", "density: share of its values that a message sends"),
    "residual": ("compression", "largest residual, in thresholds"),
    "block_update_norm": ("blocks", "norm of BMUF's last update"),
    "outer_momentum_norm": ("blocks", "norm of DiLoCo's outer momentum"),
}
COLOURS = (svg.BLUE, svg.ORANGE, svg.GREEN, svg.VERMILION, svg.PURPLE, svg.SKY, svg.BLACK)
MARKERS = "osD^vP*"


class Series(NamedTuple):
    """Values, and after how many frames each of them was."""

    at: list[float]
    value: list[float]

    @classmethod
    def of(cls, lines: Sequence[dict[str, Any]], name: str, group: str | None = None) -> Series:
        """Take a number from the lines that have it."""
        found = [
            (line["frames"], line if group is None else line.get(group, {})) for line in lines
        ]
        having = [(at, told[name]) for at, told in found if name in told or group is None]
        return cls([float(at) for at, _ in having], [float(value) for _, value in having])


class Curves(NamedTuple):
    """What is drawn of a run: values over frames, by the epoch, or by the line of its step log."""

    label: str
    frames: list[int]  # at the ends of epochs
    seconds: list[float]  # of training, until then
    rate: list[float]
    loss: Series
    numbers: dict[str, Series]  # of the methods: NUMBERS
    bytes_per_step: dict[str, float]  # by class of link, all ranks
    task: str

    @classmethod
    def of(cls, folder: RunFolder) -> Curves:
        """Return a finished run's curves, or raise a `UserError` if a figure is missing."""
        lines, summary = folder.metrics(), folder.summary()
        try:
            taken, frames = summary["steps"], [line["frames"] for line in lines]
            logged = [
                line | {"frames": line["step"] * summary["frames"] / taken}
                for line in folder.steps()
            ]
            return cls(
                f"{folder.path.name} ({summary['strategy']}, {summary['world_size']} ranks)",
                frames,
                list(itertools.accumulate(line["seconds"] for line in lines)),
                [100 * line["dev"]["frame_error_rate"] for line in lines],
                Series.of(logged or lines, "loss"),
                {
                    name: found
                    for name, (group, _) in NUMBERS.items()
                    if (found := Series.of(logged, name, group)).at
                    or (found := Series.of(lines, name, group)).at
                },
                {link: summary["ledger"][link]["bytes"] / taken for link in ("intra", "inter")},
                folder.config()["recipe"]["task"],
            )
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise UserError(
                f"{folder.path / METRICS}, {STEPS}, {SUMMARY} or {CONFIG} is not what this "
                f"refimpl writes ({told(error)}): train again"
            ) from error

    def time(self, frames: Sequence[float]) -> list[float]:
        """Return when so many frames were done, in seconds of training, even inside an epoch."""
        return np.interp(frames, [0, *self.frames], [0, *self.seconds]).tolist()


def runs(folders: list[RunFolder], out: Path, traces: Sequence[Timeline] = ()) -> None:
    """Write one picture, PNG or SVG by the file's name; needs `require_matplotlib`.

    Loss and dev FER over frames and over time, bytes per step per class of link, of what methods
    tell that which there is, and of a step of each trace what its ranks did.  A colour and a
    style of line for each run.
    """
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    every = [Curves.of(folder) for folder in folders]
    words = tasks.words(run.task for run in every)
    told = [name for name in NUMBERS if any(name in run.numbers for run in every)]
    panels = 5 + len(told) + len(traces)
    high = -(-panels // 3)
    figure, grid = pyplot.subplots(high, 3, figsize=(13, 3.4 * high), layout="constrained")
    loss, later, sent, rate, rate_later, *more = grid.flat
    for panel in more[panels - 5 :]:
        panel.set_visible(False)
    for place, run in enumerate(every):
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "markersize": 4}
        style |= {"linestyle": ("-", "--", "-.", ":")[place // len(COLOURS) % 4]}
        few = {"marker": MARKERS[place % len(MARKERS)]}
        loss.plot(*run.loss, label=run.label, **style, **_dots(run.loss, few))
        later.plot(run.time(run.loss.at), run.loss.value, **style, **_dots(run.loss, few))
        rate.plot(run.frames, run.rate, **style, **few)
        rate_later.plot(run.seconds, run.rate, **style, **few)
        for name, panel in zip(told, more, strict=False):
            if name in run.numbers:
                panel.plot(*run.numbers[name], **style, **_dots(run.numbers[name], few))
        for link, hatch in (("intra", None), ("inter", "///")):
            at = place + (0.2 if link == "inter" else -0.2)
            bar = {"color": style["color"], "hatch": hatch, "edgecolor": "white"}
            sent.bar(at, run.bytes_per_step[link], 0.4, **bar)
    frames, seconds = (loss, rate, *more[: len(told)]), (later, rate_later)
    for panel, title in (
        (loss, f"training loss, nats per {words.example}"),
        (later, f"training loss, nats per {words.example}"),
        (rate, f"{words.error_rate} on dev, %"),
        (rate_later, f"{words.error_rate} on dev, %"),
        (sent, "bytes per step, all ranks (hatched: between nodes)"),
        *((panel, NUMBERS[name][1]) for name, panel in zip(told, more, strict=False)),
    ):
        panel.set_title(title, fontsize="medium")
        panel.grid(alpha=0.3)
    for panel in frames:
        panel.set_xlabel(words.examples)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    for panel in seconds:
        panel.set_xlabel("seconds of training")
    sent.set_xticks(range(len(every)), [folder.path.name for folder in folders])
    sent.yaxis.set_major_formatter(EngFormatter(unit="B"))
    for trace, panel in zip(traces, more[len(told) :], strict=False):
        _shares(panel, trace)
    wide = min(3, len(every))
    figure.legend(handles=loss.lines, loc="outside lower center", fontsize="small", ncols=wide)
    save(figure, out)
    pyplot.close(figure)


def _dots(series: Series, few: dict[str, str]) -> dict[str, str]:
    """Mark the points of a curve that has few, one by one."""
    return few if len(series.at) <= 12 else {}


def _shares(panel: Any, trace: Timeline) -> None:
    """Draw for every rank what it did in a step."""
    shares, bottom = trace.shares(), np.zeros(len(trace.ranks))
    looks = ((svg.GREEN, None), (svg.BLUE, "///"), (svg.ORANGE, "..."))
    for doing, (colour, hatch) in zip(DOING, looks, strict=True):
        value = np.array([100 * share[doing] for share in shares])
        look = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        panel.bar(range(len(shares)), value, bottom=bottom, label=doing, **look)
        bottom += value
    panel.set_title(f"{trace.name}: share of {trace.when}, %", fontsize="medium")
    panel.set_xlabel("rank")
    panel.set_ylim(0, 100)
    panel.legend(fontsize="small", loc="lower right")


def save(figure: Any, out: Path) -> None:
    """Write a figure as its file's name says, whole or not at all, an SVG without the date."""
    import matplotlib

    kind = out.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "refimpl"}), writing(out) as partial:
        figure.savefig(partial, dpi=120, format=kind, metadata=metadata)


def comparison(result: dict[str, Any], words: Words, out: Path) -> None:
    """Write a picture of a comparison: errors of each strategy over its bytes per frame."""
    from matplotlib import pyplot

    table = [row for row in result["table"] if "fer" in row]  # the others have diverged
    names = [row["strategy"] for row in table]
    figure, (errors, traffic) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    place = range(len(names))
    rates, label = [100 * row["fer"] for row in table], words.error_rate
    errors.bar([i - 0.2 for i in place], rates, 0.4, label=label)
    if all("wer" in row for row in table):
        errors.bar([i + 0.2 for i in place], [100 * row["wer"] for row in table], 0.4, label="WER")
    errors.set_xticks(list(place), names, rotation=30)
    errors.set(ylabel="error rate, test (%)")
    errors.legend()
    for link, shift in (("intra", -0.2), ("inter", 0.2)):
        bytes_per_frame = [row[f"{link}_bytes_per_frame"] for row in table]
        if any(bytes_per_frame):
            traffic.bar([i + shift for i in place], bytes_per_frame, 0.4, label=link)
    traffic.set_xticks(list(place), names, rotation=30)
    traffic.set(ylabel=f"bytes sent per {words.example}, all ranks")
    if traffic.patches:
        traffic.set_yscale("log")
        traffic.legend()
    figure.suptitle(result["model"])
    save(figure, out)
    pyplot.close(figure)
