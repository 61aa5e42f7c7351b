"""Several strategies on the same data, side by side: accuracy, traffic, speed.

Every strategy sees the same total number of frames, which is what makes error rates comparable:
``serial`` takes n times as many steps of a batch as n workers take together.  Each is trained with
several seeds; an increase is relative to serial's mean over them, its spread is theirs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from refimpl.config import Run
from refimpl.modelfile import ModelFile
from refimpl.parallel import strategy
from refimpl.trainer import Trainer

if TYPE_CHECKING:
    from refimpl.communicator import Communicator

# How often a rank that has nothing to do looks whether the others are done, in seconds.
PATIENCE = 0.02


def fitted(run: Run, name: str, seed: int) -> Run:
    """Return the run for one strategy: what does not go with it is left out.

    Options are given once for all strategies, so ``--tau`` must not be refused by ``ddp``.
    """
    row = strategy(name)
    compression = run.compression
    if row.gradient == "onebit":
        compression = {k: v for k, v in compression.items() if k == "gtc_warmup"}
    blocks = {k: v for k, v in run.blocks.items() if k != "residuals" or row.hybrid}
    return replace(
        run,
        strategy=name,
        seed=seed,
        partition=run.partition if row.takes("--partition") else None,
        zero_stage=run.zero_stage if row.stage is None else None,
        gtc_group=run.gtc_group if row.takes("--gtc-group") else None,
        compression=compression if row.gradient in ("gtc", "onebit") else {},
        blocks=blocks if row.blockwise else {},
    )


def compare(
    comm: Communicator,
    model: ModelFile,
    run: Run,
    names: list[str],
    seeds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train every strategy with every seed and return their summaries and the table's rows.

    ``serial`` runs on rank 0 while the others wait without using their cores.  Collective.

    Raises
    ------
    UserError
        If any of the runs cannot be; before the first one starts.
    """
    runs = {
        name: [fitted(run, name, run.seed + number) for number in range(seeds)] for name in names
    }
    for name, planned in runs.items():
        planned[0].check(1 if name == "serial" else comm.size)
    summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for name, planned in runs.items():
        for one in planned:
            say(f"--- {name}, seed {one.seed}")
            summaries[name].append(_trained(comm, model, one, say))
    return {"model": model.name, "runs": summaries, "table": rows(summaries)}


def _trained(
    comm: Communicator, model: ModelFile, run: Run, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the summary of one run, on all ranks."""
    if run.strategy != "serial":
        return Trainer(comm, run, model, say).train()
    alone = comm.split(0 if comm.rank == 0 else None)
    summary = Trainer(alone, run, model, say).train() if alone is not None else None
    wait_idle(comm)
    return comm.bcast_object(summary)


def wait_idle(comm: Communicator) -> None:
    """Wait until all ranks are here, asleep: a barrier that leaves the cores to others."""
    barrier = comm.mpi.Ibarrier()
    while not barrier.Test():
        time.sleep(PATIENCE)


def rows(summaries: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row per strategy: means over seeds, and increases over serial's mean.

    ``increase`` is {mean, spread} of (error / serial's mean error - 1) over seeds, for the test
    set's frame and word error rate; None without serial or where serial makes no error.
    """
    serial = summaries.get("serial")
    table = []
    for name, runs in summaries.items():
        row: dict[str, Any] = {"strategy": name, "seeds": len(runs)}
        for what, error in (("fer", fer), ("wer", wer)):
            errors = [error(run) for run in runs]
            if errors[0] is None:
                continue
            row[what] = statistics.mean(errors)
            base = statistics.mean(error(run) for run in serial) if serial else 0.0
            row[f"{what}_increase"] = _increase(errors, base) if base else None
        for link in ("intra", "inter"):
            row[f"{link}_bytes_per_frame"] = statistics.mean(
                run["ledger"][link]["bytes"] / run["frames"] for run in runs
            )
        row["frames"] = runs[0]["frames"]
        row["frames_per_second"] = statistics.mean(run["frames_per_second"] for run in runs)
        row["seconds"] = statistics.mean(run["seconds"] for run in runs)
        row["resident_bytes_per_rank"] = max(run["max_resident_bytes_per_rank"] for run in runs)
        table.append(row)
    return table


def _increase(errors: list[float], base: float) -> dict[str, float]:
    relative = [error / base - 1 for error in errors]
    spread = statistics.stdev(relative) if len(relative) > 1 else 0.0
    return {"mean": statistics.mean(relative), "spread": spread}


def fer(run: dict[str, Any]) -> float:
    """Return the test set's frame error rate."""
    return run["frame_error_rate"]["test"]


def wer(run: dict[str, Any]) -> float | None:
    """Return the test set's word error rate, None for a model that knows no words."""
    return run["word_error_rate"]["test"]["wer"] if "word_error_rate" in run else None


def table_text(result: dict[str, Any]) -> str:
    """Return the table for a person; ``+2.1 % (0.4)`` is a mean and its spread over seeds."""
    words = any("wer" in row for row in result["table"])
    head = ["strategy", "FER", "over serial"] + (["WER", "over serial"] if words else [])
    head += ["intra B/frame", "inter B/frame", "frames/s", "s", "MB/rank"]
    lines = [head]
    for row in result["table"]:
        cells = [row["strategy"]]
        for what in ("fer", "wer") if words else ("fer",):
            cells.append(f"{row[what]:.2%}" if what in row else "")
            increase = row.get(f"{what}_increase")
            cells.append(
                f"{100 * increase['mean']:+.1f} % ({100 * increase['spread']:.1f})"
                if increase
                else "-"
            )
        cells += [f"{row[f'{link}_bytes_per_frame']:,.0f}" for link in ("intra", "inter")]
        cells += [f"{row[name]:,.0f}" for name in ("frames_per_second", "seconds")]
        cells.append(f"{row['resident_bytes_per_rank'] / 1e6:.0f}")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
