"""What a run says of itself, in words and in figures."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.methods.strategies import Methods
from refimpl.run import stragglers
from refimpl.run.config import COLLECTIVES, Run
from refimpl.support.text import duration, size
from refimpl.tasks import table as tasks
from refimpl.tasks.protocol import Words
from refimpl.world import pernode
from refimpl.world.ledger import Count
from refimpl.world.topology import Grid, Nodes, scattered


def plain(counts: dict[str, Count]) -> dict[str, dict[str, int]]:
    """Return counts per link class as plain data."""
    return {link: count._asdict() for link, count in counts.items()}


def announcement(run: Run, methods: Methods, setting: Setting) -> str:
    """Return what will happen, in one line; in another what is wrong with how ranks are placed."""
    recipe, nodes = run.recipe, setting.nodes.count
    task = tasks.kind(recipe.task)
    where = f" on {nodes} nodes" if nodes > 1 else ""
    where += ", ranks renumbered by node" if where and run.map == "by-node" else ""
    steps = f" x {recipe.microsteps} micro-steps" if recipe.microsteps > 1 else ""
    ahead = ", next unit prefetched" if getattr(methods.partition, "prefetch", False) else ""
    line = (
        f"{setting.grid.sentence()}{where} ({run.strategy}), {_ways(run, methods, setting)}, "
        f"{run.reduction} reduction, {recipe.batch} {task.words.examples} per rank{steps}{ahead}"
    )
    warning = scattered_text(setting.grid, setting.nodes, os.environ)
    return f"{line}\nwarning: {warning}" if warning else line


def scattered_text(grid: Grid, nodes: Nodes, launcher: Mapping[str, str]) -> str:
    """Return a line on groups that are on more nodes than they need be, and its remedy; or "".

    ``launcher``: the environment, by which the launcher is known.
    """
    axis, groups = scattered(grid, nodes)
    if not groups:
        return ""
    first = ", ".join(map(str, groups[0][:4])) + (", ..." if len(groups[0]) > 4 else "")
    each = max(map(nodes.node.count, nodes.node))
    if "OMPI_COMM_WORLD_RANK" in launcher:
        remedy = "mpiexec --map-by slot"
    elif "MPI_LOCALNRANKS" in launcher:  # hydra's: MPICH, Intel MPI
        remedy = f"mpiexec -ppn {each}"
    elif "SLURM_STEP_ID" in launcher:
        remedy = "SLURM_DISTRIBUTION=block (srun --distribution=block)"
    else:
        remedy = "the launcher's block placement"
    return (
        f"{len(groups)} of {len(grid.groups(axis))} {axis} groups are on more nodes than need be, "
        f"{{{first}}} on {nodes.spanned(groups[0])}, and what they send goes between nodes: "
        f"give {remedy}, or --map by-node"
    )


def _ways(run: Run, methods: Methods, setting: Setting) -> str:
    """Return by which messages the axes talk; on one rank, that named collectives are not used.

    ``ring collectives``; ``gtc messages``; ``ring collectives (partition), gtc messages``
    """
    ways = traffic.families(methods, setting)
    own = [f"{getattr(methods, axis).name} messages" for axis in ways if False in ways[axis]]
    theirs = [
        axis if len(ways[axis]) == 1 else f"{axis}, dense sums"
        for axis in ways
        if True in ways[axis]
    ]
    if theirs:
        where = f" ({'; '.join(theirs)})" if own else ""
        return ", ".join([f"{run.collectives} collectives{where}", *own])
    if own:
        return ", ".join(own)
    unused = "" if run.collectives == COLLECTIVES else f" (not by --collectives {run.collectives})"
    return "nothing to send" + unused


def identity(run: Run, grid: Grid) -> dict[str, Any]:
    """Return what a summary says of how it was trained."""
    return {
        "strategy": run.strategy,
        "world_size": grid.world,
        "partition": grid.partition,
        "gtc_group": grid.gradient,
        "blocks": grid.blocks,
        "reduction": run.reduction,
        "collectives": run.collectives,
        "seed": run.seed,
    }


def error_rates(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the error rates of several splits, each kind that all of them have, by split."""
    kinds = ("frame_error_rate", "word_error_rate")
    return {
        kind: {split: score[kind] for split, score in scores.items()}
        for kind in kinds
        if all(kind in score for score in scores.values())
    }


def epoch_text(line: dict[str, Any], words: Words) -> str:
    """Return an epoch's line of metrics.jsonl for a person."""
    note = "" if line["accepted"] else "; worse, weights restored"
    changed, dev, sent = line["realigned"], line["dev"], line["ledger"]
    note += "" if changed is None else f"; {changed:.1%} of the targets re-aligned"
    note += stragglers.told(line["stragglers"])
    return (
        f"epoch {line['epoch']}: loss {line['loss']:.4f}, dev loss {dev['loss']:.4f}, "
        f"dev {words.error_rate} {dev['frame_error_rate']:.2%}, lr {line['lr']:.4g}, "
        f"{line['frames_per_second']:,.0f} {words.examples}/s, "
        f"sent {size(sent['intra']['bytes'])} intra {size(sent['inter']['bytes'])} inter{note}"
    )


def summary_text(summary: dict[str, Any], words: Words) -> str:
    """Return the scores of a summary as lines for a person."""
    lines = [
        f"{summary['frames']:,} {words.examples} in {duration(summary['seconds'])} "
        f"({summary['frames_per_second']:,.0f} {words.examples}/s), "
        f"parameters sha256 {summary['parameters_sha256'][:16]}"
    ]
    for split, rate in summary["frame_error_rate"].items():
        said = words_text(summary.get("word_error_rate"), split)
        lines.append(f"{split:<5} {words.error_rate} {rate:7.2%}{said}")
    return "\n".join(lines)


def words_text(rates: dict[str, dict[str, Any]] | None, split: str) -> str:
    """Return a split's word errors as they are usually written: WER [errors / words, S D I]."""
    if rates is None:
        return ""
    e = rates[split]
    errors = e["substitutions"] + e["deletions"] + e["insertions"]
    return (
        f"   WER {e['wer']:7.2%} [{errors} / {e['words']}: {e['substitutions']} sub, "
        f"{e['deletions']} del, {e['insertions']} ins]"
    )


def peak_resident() -> int:
    """Return the most bytes of memory that this process has had resident so far.

    Without what the ranks of a node share, so far as it is resident now: the examples, and the
    memory through which MPI sends.  Libraries are in it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        peak, shared = (
            int(status.partition(field)[2].split()[0]) * 1024 for field in ("VmHWM:", "RssShmem:")
        )
        return peak - shared - pernode.resident()
    except (OSError, IndexError):
        # Where there is no /proc.  Linux would count the process that started this one, too.
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024  # the BSDs count in KB
