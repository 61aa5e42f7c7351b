"""Pictures of runs and comparisons, for those who have matplotlib (extra ``[plot]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from refimpl.run.claim import SUMMARY
from refimpl.run.folder import METRICS, RunFolder
from refimpl.support.errors import UserError, told


def require_matplotlib() -> None:
    """Raise a `UserError` with the remedy if matplotlib is not there."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError(
            "pictures need matplotlib: install the extra, pip install 'refimpl[plot]'"
        ) from None
    matplotlib.use("Agg")


class Curves(NamedTuple):
    """What is drawn of a run: a value per epoch."""

    label: str
    frames: list[int]
    loss: list[float]
    rate: list[float]
    bytes_per_step: dict[str, list[float]]  # by class of link

    @classmethod
    def of(cls, folder: RunFolder) -> Curves:
        """Return a finished run's curves, or raise a `UserError` if a figure is missing."""
        lines, summary = folder.metrics(), folder.summary()
        try:
            steps = [line["step"] for line in lines]
            taken = [after - before for after, before in zip(steps, [0, *steps], strict=False)]
            sent = {
                link: [line["ledger"][link]["bytes"] for line in lines]
                for link in ("intra", "inter")
            }
            return cls(
                f"{folder.path.name} ({summary['strategy']}, {summary['world_size']} ranks)",
                [line["frames"] for line in lines],
                [line["loss"] for line in lines],
                [100 * line["dev"]["frame_error_rate"] for line in lines],
                {k: [b / t for b, t in zip(v, taken, strict=True)] for k, v in sent.items()},
            )
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise UserError(
                f"{folder.path / METRICS} or {SUMMARY} is not what this refimpl writes "
                f"({told(error)}): train again"
            ) from error


def runs(folders: list[RunFolder], out: Path) -> None:
    """Write one PNG: loss and dev FER over frames, bytes per step per class of link.

    One colour per run; needs `require_matplotlib`.
    """
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    every = [Curves.of(folder) for folder in folders]
    figure, (loss, rate, traffic) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for run in every:
        loss.plot(run.frames, run.loss, marker=".", label=run.label)
        rate.plot(run.frames, run.rate, marker=".")
        colour = loss.lines[-1].get_color()
        for link, style in (("intra", "-"), ("inter", "--")):
            per_step = run.bytes_per_step[link]
            if any(per_step):
                traffic.plot(run.frames, per_step, style, color=colour, marker=".")
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
