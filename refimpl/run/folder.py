"""The folder of a run: what is in it, and that none of it is ever half-written.

    state.json       running, stopped or failed (and why), or finished; of one killed: running
    config.json      the run: every value that decided what was computed
    checkpoints/     the run's state after some steps, to go on from: see `refimpl.run.saving`
    model.py         the model file's text, so that the run can be opened without it
    metrics.jsonl    one line per epoch, written as it happens
    steps.jsonl      with --log-every N, a line of rank 0's per N steps
    flight.txt       with --patience, of a run that hung: where its ranks stood; flight-rank-*.json
    model.npz        the parameters by name, at the end
    task.npz         what the task needs to score or decode other data, at the end
    summary.json     the figures, at the very end: a folder that has it is a finished run
    .slurm_job       in a SLURM job, its number: should it be requeued, it knows its own work

Only rank 0 writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.run.claim import JOB, SUMMARY, check_free
from refimpl.state.digest import Digest
from refimpl.support.errors import Diverged, Stopped, UserError, brief, refused, require
from refimpl.support.files import (
    append_line,
    load_arrays,
    load_state,
    read_json,
    read_text,
    save_arrays,
    save_state,
    write_json,
    write_whole,
)

CONFIG, STATE = "config.json", "state.json"
METRICS, STEPS = "metrics.jsonl", "steps.jsonl"


class RunFolder:
    """A run's folder, opened for writing (by `create`) or reading (by `finished`).

    A context manager while it is written: an error that ends the run is noted in its state.
    """

    def __init__(self, path: Path, told: dict[str, Any] | None = None) -> None:
        self.path, self._told = path, told or {}
        self._failed: UserError | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None:
            why = " ".join(str(error).split())
            if not issubclass(kind, (Diverged, Stopped)):
                why = f"{kind.__name__}: {why}"
            with suppress(UserError):  # of a full disk we are here
                self._set("stopped" if kind is Stopped else "failed", why=why)

    def _set(self, state: str, **more: Any) -> None:
        write_json(self.path / STATE, {"state": state, **more, **self._told})

    @classmethod
    def create(
        cls,
        path: Path,
        config: dict[str, Any],
        model_text: str,
        told: dict[str, Any] | None = None,
    ) -> RunFolder:
        """Make the folder and write what is known before training, all of it or nothing.

        ``told``: what else state.json is to keep, plain data.

        Raises
        ------
        UserError
            If the folder holds anything already, or cannot be made.
        """
        try:
            check_free(path)
            path.mkdir(parents=True, exist_ok=True)
            with (path / METRICS).open("x"):  # of two runs at once, one
                pass
        except FileExistsError as error:
            raise UserError(f"run folder {path} is another run's: give --out a new one") from error
        except OSError as error:
            raise refused(error, f"cannot write run folder {path}") from error
        try:
            if "SLURM_JOB_ID" in os.environ:
                write_whole(path / JOB, os.environ["SLURM_JOB_ID"].encode())
            folder = cls(path, told)
            folder._running()
            write_whole(path / "model.py", model_text.encode())
            write_json(path / CONFIG, config)
        except UserError:
            for name in (METRICS, JOB, STATE, "model.py", CONFIG):
                (path / name).unlink(missing_ok=True)
            raise
        return folder

    @classmethod
    def begun(cls, path: Path, patience: float = 5.0) -> RunFolder:
        """Open the folder of a run that was begun and is over, or will be in so many seconds."""
        require(
            (path / CONFIG).is_file(),
            f"run {path} was never begun (no {CONFIG}): start it with --out",
        )
        folder, until = cls(path), time.monotonic() + patience
        while (told := folder.told()).get("process") != os.getpid() and folder._runs_here(told):
            require(  # a launcher may be gone before the last of its ranks
                time.monotonic() < until,
                f"run {path} still runs (process {told['process']}): wait for it, or end it",
            )
            time.sleep(0.05)
        return folder

    def go_on(self, config: dict[str, Any], epochs: int, step: int) -> None:
        """Make it a running run's again, as it was after so many epochs and steps.

        What cannot be read is refused before anything is written.
        """
        kept = {METRICS: self._text(METRICS).splitlines(True)[:epochs]}
        if (self.path / STEPS).exists():
            whole = [one for one in self._text(STEPS).splitlines(True) if one.endswith("\n")]
            kept[STEPS] = [one for one in whole if self._step(one) <= step]
        resumed = self.told().get("resumed", [])
        where = f"cannot read {self.path / STATE}: resumed is {brief(resumed)}"
        require(isinstance(resumed, list), f"{where}: give a list, or remove it")
        try:
            self._running(resumed=[*resumed, step])
            (self.path / SUMMARY).unlink(missing_ok=True)  # before what it tells of is cut
            write_json(self.path / CONFIG, config)
            for name, lines in kept.items():
                write_whole(self.path / name, "".join(lines).encode())
        except OSError as error:
            raise refused(error, f"cannot write run folder {self.path}") from error

    def _step(self, line: str) -> int:
        step = self._parsed(STEPS, line).get("step")
        if not isinstance(step, int):
            where = f"cannot read {self.path / STEPS}: step is {brief(step)}"
            raise UserError(f"{where} in {brief(line)}: remove that line")
        return step

    def _running(self, **more: Any) -> None:
        here = {"host": os.uname().nodename, "process": os.getpid()}
        self._told = {**self._told, **more}
        self._set("running", **here, since=since(os.getpid()))

    def told(self) -> dict[str, Any]:
        """Return state.json; empty if the run was killed before it was written."""
        return self._read(STATE) if (self.path / STATE).is_file() else {}

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
        told = self.told()
        if told.get("state") == "stopped":
            return f"is not finished ({told.get('why')})"
        if told.get("state") != "running":
            return f"has failed ({told.get('why')})"
        host, process = told.get("host"), told.get("process")
        if host != os.uname().nodename or not isinstance(process, int):
            return f"is not finished: it runs on {host}, or was killed there (process {process})"
        here = self._runs_here(told)
        return f"is not finished: {here or f'it was killed (its process {process} is gone)'}"

    @staticmethod
    def _runs_here(told: dict[str, Any]) -> str | None:
        """Return in words that the run's first process runs on this host, if it does."""
        process = told.get("process")
        here = told.get("state") == "running" and told.get("host") == os.uname().nodename
        if not here or not isinstance(process, int) or process <= 0:
            return None
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            pass  # another user's
        began, now = told.get("since"), since(process)
        another = None not in (began, now) and began != now  # has its number now
        return None if another else f"it still runs (process {process})"

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

    def steps(self) -> list[dict[str, Any]]:
        """Return the lines of steps.jsonl; none if steps were not logged."""
        if not (self.path / STEPS).exists():
            return []
        return [self._parsed(STEPS, line) for line in self._text(STEPS).splitlines()]

    def _read(self, name: str) -> dict[str, Any]:
        return self._parsed(name, self._text(name))

    def _text(self, name: str) -> str:
        return read_text(self.path / name)

    def _parsed(self, name: str, text: str) -> dict[str, Any]:
        try:
            plain = read_json(text)
        except ValueError as error:
            raise UserError(f"cannot read {self.path / name}: {error}") from error
        if not isinstance(plain, dict):
            raise UserError(f"cannot read {self.path / name}: a JSON object is needed")
        return plain


def since(process: int) -> str | None:
    """Return when a process began, in ticks since the machine did; None where nothing tells."""
    with suppress(OSError, IndexError):
        stat = Path(f"/proc/{process}/stat").read_bytes()
        return stat.rpartition(b")")[2].split()[19].decode()
    return None


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
