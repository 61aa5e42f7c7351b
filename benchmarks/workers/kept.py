"""The runs that docs/workers.md tells of: all their files as one, beside this one.

Whoever doubts a table makes it again from them in seconds, ``python benchmarks/workers --report``.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from benchmarks.workers.jobs import Job, Size
from refimpl.support.errors import UserError
from refimpl.support.files import read_json, write_json, write_whole

FILE = Path(__file__).with_name("runs.json.gz")


def pack(file: Path, size: Size, runs: list[dict[str, Any]]) -> None:
    """Write all runs, in the order of their names."""
    ordered = sorted(runs, key=lambda run: Job(**run["job"]).name)
    text = json.dumps({"size": size.plain(), "runs": ordered}, separators=(",", ":"))
    write_whole(file, gzip.compress(text.encode(), mtime=0))


def unpack(file: Path, size: Size, folder: Path) -> None:
    """Make the folder of runs that `Desk` keeps.

    Raises `UserError` if they are of an experiment of another size.
    """
    kept = read_json(gzip.decompress(file.read_bytes()).decode())
    if kept["size"] != size.plain():
        raise UserError(f"{file} is of an experiment of another size: give --out DIR")
    (folder / "runs").mkdir()
    for run in kept["runs"]:
        write_json(folder / "runs" / f"{Job(**run['job']).name}.json", run)
