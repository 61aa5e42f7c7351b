"""Go the ways of docs/golden.md from nothing to a first red line and a first green rung, and time
them: `python five_minutes.py [python|c]...`.

The commands are those of the chapter.  Seconds are of this machine, and of what else it does.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TOP = Path(__file__).resolve().parents[2]
CHAPTER = (TOP / "docs" / "golden.md").read_text(encoding="utf-8")
WAYS = dict(re.findall(r"^```sh (\w+)\n(.*?)^```", CHAPTER, re.MULTILINE | re.DOTALL))


def gone(commands, folder):
    """Run the commands in a folder; yield each, its seconds, its exit code and what it printed."""
    tools = folder / "bin"
    tools.mkdir()
    for name, words in (("refimpl", "-m refimpl"), ("python", "")):
        shim = f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n'
        (tools / name).write_text(shim)
        (tools / name).chmod(0o755)
    there = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(TOP)}
    for command in commands:
        begun = time.monotonic()
        run = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=there, capture_output=True, text=True
        )
        yield command, time.monotonic() - begun, run.returncode, run.stdout + run.stderr


def main(*languages):
    for language in languages or WAYS:
        total = 0.0
        print(language)
        with TemporaryDirectory() as folder:
            for command, seconds, code, said in gone(WAYS[language].splitlines(), Path(folder)):
                total += seconds
                print(f"{total:8.1f} s  {command}")
                wanted = "WRONG" in command
                if code != wanted or (wanted and command.partition("# ")[2] not in said):
                    sys.exit(f"exit code {code}:\n{said}")
                if "golden check" in command:
                    print(" " * 12 + said.splitlines()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
