"""``refimpl train MODEL``: train, score, and write the run's folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import whole
from refimpl.cli.run_options import add_options, run_of


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("train", help="train a model on all ranks")
    add_options(command)
    command.add_argument("--strategy", metavar="NAME", help="default: ddp, on one rank serial")
    command.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME-TIME)")
    command.add_argument(
        "--log-every", type=whole, default=0, metavar="N", help="also log every Nth step of rank 0"
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Train as told; print the scores."""
    from refimpl.cli import say, world
    from refimpl.run.folder import RunFolder
    from refimpl.run.modelfile import ModelFile
    from refimpl.run.trainer import Trainer, run_folder
    from refimpl.support.errors import together

    comm = world(args.ranks_per_node)
    model = ModelFile.open(args.model, comm)
    run = run_of(args, model, args.strategy or ("ddp" if comm.size > 1 else "serial"))
    with together(comm):
        path = RunFolder.claim(args.out, model.name) if comm.rank == 0 else Path()
    quiet = (lambda text: None) if args.json else say
    try:
        trainer = Trainer(comm, run, model, quiet, args.log_every)
        summary = trainer.train(run_folder(path, run, model))
    finally:
        if comm.rank == 0 and not args.out:
            with suppress(OSError):
                path.rmdir()  # still empty: no run was begun
    if args.json:
        say(json.dumps(summary, indent=2))
    else:
        say(report(summary))
        say(f"run folder: {path}")
    return 0


def report(summary: dict[str, Any]) -> str:
    """Return the scores of a summary as lines for a person."""
    lines = [
        f"{summary['frames']:,} frames in {summary['seconds']:.1f} s "
        f"({summary['frames_per_second']:,.0f} frames/s), "
        f"parameters sha256 {summary['parameters_sha256'][:16]}"
    ]
    for split, rate in summary["frame_error_rate"].items():
        lines.append(f"{split:<5} FER {rate:7.2%}" + words(summary.get("word_error_rate"), split))
    return "\n".join(lines)


def words(rates: dict[str, dict[str, Any]] | None, split: str) -> str:
    """Return a split's word errors as they are usually written: WER [errors / words, S D I]."""
    if rates is None:
        return ""
    e = rates[split]
    errors = e["substitutions"] + e["deletions"] + e["insertions"]
    return (
        f"   WER {e['wer']:7.2%} [{errors} / {e['words']}: {e['substitutions']} sub, "
        f"{e['deletions']} del, {e['insertions']} ins]"
    )
