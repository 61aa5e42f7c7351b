"""The folder of a run: what is in it, and that none of it is ever half-written.

    state.json       running, failed (and why) or finished; of a run that was killed: running
    config.json      the run: every value that decided what was computed
    model.py         the model file's text, so that the run can be opened without it
    metrics.jsonl    one line per epoch, written as it happens
    steps.jsonl      with --log-every N, a line of rank 0's per N steps
    model.npz        the parameters by name, at the end
    task.npz         what the task needs to score or decode other data, at the end
    summary.json     the figures, at the very end: a folder that has it is a finished run
    .slurm_job       in a SLURM job, its number: should it be requeued, it knows its own work

Only rank 0 writes.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from refimpl.state.digest import Digest
from refimpl.support.errors import Diverged, UserError
from refimpl.support.files import (
    append_line,
    load_arrays,
    load_state,
    read_json,
    save_arrays,
    save_state,
    write_json,
    write_whole,
)

SUMMARY, CONFIG, STATE = "summary.json", "config.json", "state.json"
METRICS, STEPS = "metrics.jsonl", "steps.jsonl"
JOB = ".slurm_job"


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


class RunFolder:
    """A run's folder, opened for writing (by `create`) or reading (by `finished`).

    A context manager while it is written: an error that ends the run is noted in its state.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed: UserError | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None:
            why = " ".join(str(error).split())
            with suppress(UserError):  # of a full disk we are here
                self._set("failed", why=why if kind is Diverged else f"{kind.__name__}: {why}")

    def _set(self, state: str, **more: Any) -> None:
        write_json(self.path / STATE, {"state": state, **more})

    @staticmethod
    def claim(out: str | None, model: str) -> Path:
        """Return the folder that a run may write into, before anything is computed.

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
        if _left_by_this_job(path):
            rmtree(path, ignore_errors=True)
        RunFolder.check_free(path)
        return path

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise a `UserError` if there is anything at ``path`` already."""
        if path.is_dir() and not any(path.iterdir()):
            return
        if path.exists():
            raise UserError(f"run folder {path} is not empty: give --out a new one, or remove it")

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], model_text: str) -> RunFolder:
        """Make the folder and write what is known before training.

        Raises
        ------
        UserError
            If the folder holds anything already, or cannot be made.
        """
        try:
            cls.check_free(path)
            path.mkdir(parents=True, exist_ok=True)
            with (path / CONFIG).open("x"):  # of two runs at once, one
                if "SLURM_JOB_ID" in os.environ:
                    (path / JOB).write_text(os.environ["SLURM_JOB_ID"])
            cls(path)._set("running", host=socket.gethostname(), process=os.getpid())
            write_json(path / CONFIG, config)
            write_whole(path / "model.py", model_text.encode())
            (path / METRICS).touch()
        except FileExistsError as error:
            raise UserError(f"run folder {path} is another run's: give --out a new one") from error
        except OSError as error:
            raise UserError(f"cannot write run folder {path}: {error}") from error
        return cls(path)

    @classmethod
    def finished(cls, path: Path) -> RunFolder:
        """Open the folder of a finished run; any other is refused with what it is."""
        if not (path / SUMMARY).is_file():
            what = cls(path)._unfinished()
            raise UserError(f"run {path} {what}: give the folder of a finished run")
        return cls(path)

    def _unfinished(self) -> str:
        """Return what became of a run that has no summary, in words."""
        if not (self.path / STATE).is_file():
            return "is not finished (no summary.json)" if self.path.is_dir() else "is not there"
        told = self._read(STATE)
        if told.get("state") != "running":
            return f"has failed ({told.get('why')})"
        host, process = told.get("host"), told.get("process")
        if host != socket.gethostname() or not isinstance(process, int):
            return f"is not finished: it runs on {host}, or was killed there (process {process})"
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return f"is not finished: it was killed (its process {process} is gone)"
        except PermissionError:
            pass  # another user's
        return f"is not finished: it still runs (process {process})"

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; say, too, if one of steps.jsonl failed."""
        if self._failed:
            raise self._failed
        self._append(METRICS, line)

    def log_step(self, line: dict[str, Any]) -> None:
        """Append one line to steps.jsonl; no other rank is here to hear of a failure."""
        try:
            if not self._failed:
                self._append(STEPS, line)
        except UserError as error:
            self._failed = error

    def _append(self, name: str, line: dict[str, Any]) -> None:
        append_line(self.path / name, json.dumps(line))

    def save_model(self, parameters: Iterable[tuple[str, np.ndarray]]) -> None:
        """Write the model, one parameter after the other."""
        save_arrays(self.path / "model.npz", parameters)

    def finish(self, summary: dict[str, Any], task_state: dict[str, Any]) -> None:
        """Write the task's state and, last of all, the summary."""
        save_state(self.path / "task.npz", task_state)
        write_json(self.path / SUMMARY, summary)
        self._set("finished")

    def config(self) -> dict[str, Any]:
        """Return config.json."""
        return self._read(CONFIG)

    def summary(self) -> dict[str, Any]:
        """Return summary.json."""
        return self._read(SUMMARY)

    def model_text(self) -> str:
        """Return the text of the model file."""
        return self._text("model.py")

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the trained parameters by name."""
        return load_arrays(self.path / "model.npz")

    def task_state(self) -> dict[str, Any]:
        """Return what the task saved."""
        return load_state(self.path / "task.npz")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return [self._parsed(METRICS, line) for line in self._text(METRICS).splitlines()]

    def _read(self, name: str) -> dict[str, Any]:
        return self._parsed(name, self._text(name))

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.path / name}: {error}") from error

    def _parsed(self, name: str, text: str) -> dict[str, Any]:
        try:
            plain = read_json(text)
        except ValueError as error:
            raise UserError(f"cannot read {self.path / name}: {error}") from error
        if not isinstance(plain, dict):
            raise UserError(f"cannot read {self.path / name}: a JSON object is needed")
        return plain


def save(folder: RunFolder | None, parameters: Iterable[tuple[str, np.ndarray]]) -> str:
    """Write the parameters to a folder if there is one, and return their digest.

    One after the other, as they come: no rank needs room for the whole model.
    """
    digest = Digest()
    passing = digest.over(parameters)
    try:
        if folder is not None:
            folder.save_model(passing)
    finally:
        for _ in passing:  # where the disk is full, too: others wait for their gathers
            pass
    return digest.text()


def _left_by_this_job(path: Path) -> bool:
    """Return whether a folder holds what this SLURM job left unfinished when it was requeued."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or (path / SUMMARY).exists():
        return False
    with suppress(OSError, UnicodeDecodeError):
        return (path / JOB).read_text() == os.environ.get("SLURM_JOB_ID")
    return False
