"""Where a run may write, decided before anything is computed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from refimpl.support.errors import UserError

SUMMARY, JOB = "summary.json", ".slurm_job"


def default_folder(model: str) -> Path:
    """Make and return ``runs/NAME-TIME``, the folder of a run that was given none.

    In a SLURM job its number follows, as JOB or ARRAY_TASK; where it is taken, 2 or more.
    No two calls, of whatever processes, return the same folder.
    """
    told = os.environ.get
    job = told("SLURM_JOB_ID", "")
    if told("SLURM_ARRAY_TASK_ID"):
        job = f"{told('SLURM_ARRAY_JOB_ID', job)}_{told('SLURM_ARRAY_TASK_ID')}"
    name = "-".join(filter(None, (model, time.strftime("%Y%m%d-%H%M%S"), job)))
    for number in count(1):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot make run folder {path}: {error.strerror}; name one elsewhere with --out"
            ) from error
        return path
    raise AssertionError("there is always a next number")


def claim(out: str | None, model: str) -> Path:
    """Return the folder that a run may write into.

    Without ``out`` it is a new one of `default_folder`.  What this very SLURM job has left in
    ``out`` before it was requeued is removed: the run begins anew.

    Raises
    ------
    UserError
        If ``out`` holds anything else already, or no folder can be made.
    """
    if out is None:
        return default_folder(model)
    path = Path(out)
    if left_by_this_job(path):
        from shutil import rmtree

        rmtree(path, ignore_errors=True)
    check_free(path)
    return path


def check_free(path: Path) -> None:
    """Raise a `UserError` if there is anything at ``path`` already."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UserError(
            f"run folder {path} is not empty: give --out a new one, go on with --resume {path}, "
            "or remove it"
        )


def left_by_this_job(path: Path) -> bool:
    """Return whether a folder holds what this SLURM job left unfinished when it was requeued."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or (path / SUMMARY).exists():
        return False
    with suppress(OSError, UnicodeDecodeError):
        return (path / JOB).read_text() == os.environ.get("SLURM_JOB_ID")
    return False
