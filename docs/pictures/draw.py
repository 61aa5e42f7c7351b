"""Draw the pictures of README.md beside this file, or into another folder that is given."""

import os
import re
import sys
import tempfile
from pathlib import Path

from refimpl import cli

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # where benchmarks are

from benchmarks.workers import command as workers  # noqa: E402

PROGRAMS = {"refimpl": cli.main, "benchmarks/workers": workers.main}


def commands():
    """Return the words of every picture's commands, by the picture's name."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    return {
        name: [words.split() for words in re.findall("`(?:python )?([^`]*)`", row)]
        for name, row in re.findall(r"^\| \[(.*)\]\(\1\) \| (.*) \|$", text, re.M)
    }


def draw(folder):
    """Draw all of them.  What the commands before the last one write is for this one only."""
    folder, here = Path(folder).resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            for name, (*before, last) in commands().items():
                for program, *words in (*before, [*last, "--svg", str(folder / name)]):
                    if PROGRAMS[program](words):
                        sys.exit(f"cannot draw {name}")
        finally:
            os.chdir(here)


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else HERE)
