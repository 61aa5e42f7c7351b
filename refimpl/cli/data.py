"""``refimpl data synth DIR``: write the built-in speech data as a Kaldi data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refimpl.cli.arguments import filename, whole
from refimpl.cli.base import add_quiet, say, world


def add(commands: Any) -> None:
    """Declare the command."""
    data = commands.add_parser("data", help="make data")
    kinds = data.add_subparsers(metavar="KIND", required=True)
    synth = kinds.add_parser("synth", help="synthesize spoken digit strings with alignments")
    synth.add_argument(
        "directory", type=filename, metavar="DIR", help="where to write; must be empty or absent"
    )
    synth.add_argument("--rate", type=int, default=16000, choices=(8000, 16000), help="hertz")
    synth.add_argument("--seed", type=whole, default=0, metavar="N")
    add_quiet(synth)
    synth.set_defaults(run=run)


def run(args: Any) -> int:
    """Write the corpus with all ranks."""
    from refimpl.tasks.acoustic.synth import write_corpus

    comm = world(quiet=args.quiet)
    write_corpus(Path(args.directory), seed=args.seed, rate=args.rate, comm=comm)
    say(f"wrote {args.directory}: train, dev, test and lexicon.txt")
    return 0
