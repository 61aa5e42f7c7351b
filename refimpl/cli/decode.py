"""``refimpl decode RUN WAV...``: print the words of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename
from refimpl.cli.base import add_quiet, say, world


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("decode", help="print the words of wav files")
    command.add_argument(
        "run_folder", type=filename, metavar="RUN", help="the folder of a finished run"
    )
    command.add_argument("wavs", type=filename, metavar="WAV", nargs="+", help="RIFF wav files")
    add_quiet(command)
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print one line per file: its name and its words."""
    from refimpl.run.reopen import Finished

    finished = Finished.open(world(quiet=args.quiet), Path(args.run_folder))
    for wav, words in zip(args.wavs, finished.transcribe(args.wavs), strict=True):
        say(f"{wav} {' '.join(words)}")
    return 0
