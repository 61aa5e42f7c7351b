"""``refimpl train MODEL``: train, score, and write the run's folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename, whole
from refimpl.cli.base import say, world
from refimpl.cli.run_options import add_options, run_of


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("train", help="train a model on all ranks")
    add_options(command)
    command.add_argument(
        "--strategy", metavar="NAME", help="a row of the table (default: the simplest)"
    )
    command.add_argument(
        "--out", type=filename, metavar="DIR", help="run folder (default: runs/NAME-TIME)"
    )
    command.add_argument(
        "--log-every", type=whole, default=0, metavar="N", help="also log every Nth step of rank 0"
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Train as told; print the scores."""
    from refimpl.methods.strategies import simplest
    from refimpl.run.folder import RunFolder
    from refimpl.run.modelfile import ModelFile
    from refimpl.run.report import summary_text
    from refimpl.run.trainer import Trainer
    from refimpl.world.agree import together

    comm = world(args.ranks_per_node)
    model = ModelFile.open(args.model, comm)
    with together(comm):
        run = run_of(args, model, args.strategy or simplest(comm.size))
    with together(comm):
        path = RunFolder.claim(args.out, model.name) if comm.rank == 0 else Path()
    quiet = (lambda text: None) if args.json else say
    try:
        with Trainer(comm, run, model, quiet, args.log_every) as trainer:
            summary = trainer.train(path)
    finally:
        if comm.rank == 0 and not args.out:
            with suppress(OSError):
                path.rmdir()  # still empty: no run was begun
    if args.json:
        say(json.dumps(summary, indent=2))
    else:
        say(summary_text(summary))
        say(f"run folder: {path}")
    return 0
