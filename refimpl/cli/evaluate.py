"""``refimpl evaluate RUN``: score a finished run, on its own data or on other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename
from refimpl.cli.base import add_quiet, say, teller, world


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("evaluate", help="score a finished run, on other data too")
    command.add_argument(
        "run_folder", type=filename, metavar="RUN", help="the folder of a finished run"
    )
    command.add_argument(
        "--data",
        type=filename,
        metavar="DIR",
        help="the data to score (default: dev and test of what it was trained on)",
    )
    command.add_argument("--json", action="store_true", help="print the scores as JSON")
    add_quiet(command)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print the scores of each split or folder."""
    from refimpl.run.reopen import Finished
    from refimpl.run.report import words_text

    told = (lambda text: None) if args.json else teller(args.quiet)
    finished = Finished.open(world(quiet=args.quiet or args.json), Path(args.run_folder))
    scores = finished.evaluate(args.data, told)
    if args.json:
        say(json.dumps(scores, indent=2))
        return 0
    for note in finished.task.notes:
        say(f"note: {note}")
    kind = finished.task.words.error_rate
    for where, score in scores.items():
        rates = {where: score["word_error_rate"]} if "word_error_rate" in score else None
        say(f"{where}: {kind} {score['frame_error_rate']:7.2%}" + words_text(rates, where))
    return 0
