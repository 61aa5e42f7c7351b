"""Pictures of runs and comparisons, for those who have matplotlib (extra ``[plot]``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refimpl.errors import UserError
from refimpl.runs import METRICS, RunFolder


def require_matplotlib() -> None:
    """Raise a `UserError` with the remedy if matplotlib is not there."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError(
            "pictures need matplotlib: install the extra, pip install 'refimpl[plot]'"
        ) from None
    matplotlib.use("Agg")


def metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    path = folder.path / METRICS
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def runs(folders: list[RunFolder], out: Path) -> None:
    """Write one PNG: loss and dev FER over frames, bytes per step per class of link.

    One colour per run; needs `require_matplotlib`.
    """
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    figure, (loss, rate, traffic) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for folder in folders:
        lines, summary = metrics(folder), folder.summary()
        frames = [line["frames"] for line in lines]
        label = f"{folder.path.name} ({summary['strategy']}, {summary['world_size']} ranks)"
        loss.plot(frames, [line["loss"] for line in lines], marker=".", label=label)
        rate.plot(frames, [100 * line["dev"]["frame_error_rate"] for line in lines], marker=".")
        steps = [line["step"] for line in lines]
        taken = [after - before for after, before in zip(steps, [0, *steps[:-1]], strict=True)]
        colour = loss.lines[-1].get_color()
        for link, style in (("intra", "-"), ("inter", "--")):
            sent = [line["ledger"][link]["bytes"] for line in lines]
            per_step = [b / t for b, t in zip(sent, taken, strict=True)]
            if any(per_step):
                traffic.plot(frames, per_step, style, color=colour, marker=".")
    for panel, title in (
        (loss, "training loss, nats per frame"),
        (rate, "frame error rate on dev, %"),
        (traffic, "bytes per step, all ranks (dashed: between nodes)"),
    ):
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("frames")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.grid(alpha=0.3)
    traffic.yaxis.set_major_formatter(EngFormatter(unit="B"))
    traffic.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", fontsize="small")
    figure.savefig(out, dpi=120, format="png")
    pyplot.close(figure)


def comparison(result: dict[str, Any], out: Path) -> None:
    """Write one PNG of a comparison: errors of each strategy over its bytes per frame."""
    from matplotlib import pyplot

    table = [row for row in result["table"] if "fer" in row]  # the others have diverged
    names = [row["strategy"] for row in table]
    figure, (errors, traffic) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    place = range(len(names))
    errors.bar([i - 0.2 for i in place], [100 * row["fer"] for row in table], 0.4, label="FER")
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
    traffic.set(ylabel="bytes sent per frame, all ranks")
    if traffic.patches:
        traffic.set_yscale("log")
        traffic.legend()
    figure.suptitle(result["model"])
    figure.savefig(out, dpi=120, format="png")
    pyplot.close(figure)
