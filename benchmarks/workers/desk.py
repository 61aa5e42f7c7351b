"""Runs are trained, scored and kept: a JSON file each, written when the run is over.

    DIR/corpus/      the built-in corpus of the experiment's size (`refimpl data synth`'s)
    DIR/features/    its features
    DIR/runs/        NAME.json of every run that is over; NAME.npz of the one under way
    DIR/lock         of which a byte is locked for each run that is under way

A run is saved every minute, and when the process is told to end; it goes on from there, to the
same bits.  Several processes may work in one folder: a run is the work of one of them.
"""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workers.fleet import DTYPE, Fleet
from benchmarks.workers.jobs import Job, NotYet, Size
from benchmarks.workers.spliced import Spliced
from refimpl import nn
from refimpl.run.modelfile import ModelFile
from refimpl.support.errors import Diverged, Stopped, UserError
from refimpl.support.files import read_json, read_text, write_json
from refimpl.tasks.acoustic.posteriors import posteriors
from refimpl.tasks.acoustic.score import word_errors
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.synth import write_corpus
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples, Outputs
from refimpl.tasks.scoring import CHUNK
from refimpl.world.communicator import Communicator
from refimpl.world.threads import Post

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "acoustic_mlp.py"
SAVE_EVERY, REST = 60.0, 5.0  # seconds
CORPUS = "corpus.json"


class Alone(Communicator):
    """One rank, without MPI."""

    def Bcast(self, buf: np.ndarray, root: int = 0) -> None:
        """Leave the buffer alone: there is nobody to send it to."""


class Desk:
    """Where runs are kept.  A context manager while there is work."""

    def __init__(self, folder: Path, size: Size, say: Callable[[str], None]) -> None:
        self.folder, self.size, self.say = folder, size, say
        self.runs = folder / "runs"
        self.comm = Alone.over(Post(1).transport(0), (0,), (0,))
        self._signal = 0

    def __enter__(self) -> Desk:
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise UserError(f"--out {self.folder}: {error.strerror}") from error
        about = self.folder / "size.json"
        mine = self.size.plain()
        if about.exists() and read_json(read_text(about)) != mine:
            raise UserError(f"--out {self.folder} has an experiment of another size: name another")
        write_json(about, mine)
        self._handlers = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._lock.close()

    @contextmanager
    def _held(self, place: int, wait: bool) -> Iterator[None]:
        """Hold a byte of the lock; raise `NotYet` if another process does, or wait for it.

        The system frees what a process held when it ends, however it ends.
        """
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except (BlockingIOError, PermissionError):
            raise NotYet(str(place)) from None
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, place)

    def _note(self, number: int, frame: object) -> None:
        self._signal = number

    def heed(self, text: str) -> None:
        """Raise `Stopped` with what there is to say if the process was told to end."""
        if self._signal:
            raise Stopped(f"{signal.Signals(self._signal).name}: {text}")

    def rest(self) -> None:
        """Let some seconds pass, unless the process is told to end."""
        until = time.monotonic() + REST
        while time.monotonic() < until:
            self.heed("other processes go on here")
            time.sleep(0.1)

    # ------------------------------------------------------------------------------ the data

    @cached_property
    def task(self) -> AcousticTask:
        """The corpus; synthesized at the first call, by the first process."""
        with self._held(0, wait=True):
            task = self._read()
        task.splits["train"].frames = Spliced(task.train)
        return task

    def _read(self) -> AcousticTask:
        folder, size = self.folder / "corpus", self.size
        if not (folder / CORPUS).is_file():
            self.say(f"synthesizing {size.utterances} utterances in {folder}")
            write_corpus(folder, speakers=size.speakers, utterances=size.utterances)
        else:
            made = read_json(read_text(folder / CORPUS))
            wanted = {"speakers": size.speakers, "utterances": size.utterances}
            if any(made.get(name) != value for name, value in wanted.items()):
                raise UserError(f"{folder} is another corpus: remove it, or name another --out")
        features = self.folder / "features"
        features.mkdir(exist_ok=True)
        settings = AcousticSettings(word_penalties=size.penalties)
        return AcousticTask.read(self.comm, folder, settings, features)

    def network(self, seed: int) -> nn.Sequential:
        """Return the network of the experiment, planned for a batch and for scoring."""
        model = ModelFile.parse(MODEL.stem, MODEL.read_text(encoding="utf-8"), str(MODEL))
        network = model.build(seed, self.task.inputs, self.task.classes, self.size.options)
        network.plan(max(CHUNK, self.size.batch), DTYPE)
        return network

    # ------------------------------------------------------------------------------ one run

    def known(self, job: Job, test: bool) -> dict[str, Any] | None:
        """Return what came of a run; None before it is over, and with ``test`` scored."""
        path = self.runs / f"{job.name}.json"
        found = read_json(read_text(path)) if path.is_file() else None
        whole = found is not None and ("test" in found or "diverged" in found or not test)
        return found if whole else None

    def all(self) -> list[dict[str, Any]]:
        """Return what came of every run that is over."""
        return [read_json(read_text(path)) for path in self.runs.glob("*.json")]

    def trained(self, job: Job, test: bool) -> dict[str, Any]:
        """Return what came of a run, which is trained now if it was not yet.

        ``test``: whether to score the test set.  Raises `NotYet` if another process is at it, and
        `Stopped` once the run is saved, after a signal.
        """
        found = self.known(job, test)
        if found is None:
            with self._held(1 + int(job.digest, 16), wait=False):
                found = self.known(job, test)  # it may have ended just now
                return found if found is not None else self._trained(job, test)
        return found

    def _trained(self, job: Job, test: bool) -> dict[str, Any]:
        fleet = self._begun(job)
        found: dict[str, Any] = {"job": asdict(job)}
        try:
            self._train(job, fleet)
            fleet.finish()
            found |= {"steps": fleet.step, "frames": fleet.frames}
            found |= self._scores(fleet, test)
        except Diverged as error:
            found["diverged"] = str(error)
        found["cpu_seconds"] = fleet.seconds
        write_json(self.runs / f"{job.name}.json", found)
        (self.runs / f"{job.name}.npz").unlink(missing_ok=True)
        return found

    def _begun(self, job: Job) -> Fleet:
        """Return a run before its first step, or where it was saved."""
        train, multiple = self.task.train, self.size.batch * max(self.size.workers)
        batches = Batches(train.count, job.batch, job.workers, job.seed, multiple)
        run = job.run(job.epochs * batches.steps_per_epoch)
        fleet = Fleet(run, job.workers, self.network(job.seed), train, multiple)
        part = self.runs / f"{job.name}.npz"
        if part.exists():
            fleet.load(part)
            self.say(f"{job.name} goes on after step {fleet.step:,}")
        return fleet

    def _train(self, job: Job, fleet: Fleet) -> None:
        """Take all steps that are left."""
        total = job.epochs * fleet.batches.steps_per_epoch
        part, saved = self.runs / f"{job.name}.npz", time.monotonic()
        with np.errstate(over="ignore", invalid="ignore"):
            while fleet.step < total:
                with _timed(fleet):
                    fleet.advance()
                if self._signal or time.monotonic() - saved > SAVE_EVERY:
                    fleet.save(part)
                    saved = time.monotonic()
                self.heed(f"{job.name} is saved after step {fleet.step:,}")

    # ------------------------------------------------------------------------------- scores

    def _scores(self, fleet: Fleet, test: bool) -> dict[str, Any]:
        """Return dev's scores; with ``test`` also what every utterance of the test set has."""
        with _timed(fleet):
            found = {"dev": self._dev(fleet.network)}
            if test:
                found |= self._test(fleet.network)
        return found

    def _outputs(self, network: nn.Sequential) -> Outputs:
        x = np.zeros((CHUNK, self.task.inputs), DTYPE)

        def outputs(examples: Examples, index: NDArray[np.int64]) -> np.ndarray:
            rows = x[: index.size]
            examples.take(index, rows, np.zeros(index.size, np.int64))
            return network.forward(rows)

        return outputs

    def _dev(self, network: nn.Sequential) -> dict[str, Any]:
        dev = self.task.evaluate("dev", self._outputs(network), self.comm, words=False)
        if not np.isfinite(dev["loss"]):
            raise Diverged("dev's loss is not finite")
        return dev

    def _test(self, network: nn.Sequential) -> dict[str, Any]:
        """Return the test set's scores, the word penalty being chosen on dev."""
        task, comm, outputs = self.task, self.comm, self._outputs(network)
        task.tune(outputs, comm)
        split, counts = task.splits["test"], []
        frames, exact = split.frames, split.exact
        assert exact is not None
        heard = task.recogniser.transcribe(frames, outputs, comm)
        wrong = {
            u: int(np.count_nonzero(log_p.argmax(axis=1) != exact[slice(*frames.offsets[u:][:2])]))
            for window in posteriors(frames, task.classes, outputs, comm)
            for u, log_p in window
        }
        for u, (one, words) in enumerate(zip(split.utterances, heard, strict=True)):
            length = int(frames.offsets[u + 1] - frames.offsets[u])
            errors = word_errors(one.said, words)
            counts.append((length, wrong[u], errors.words, errors.errors))
        names = ("frames", "wrong", "words", "errors")
        per_utterance = dict(zip(names, map(list, zip(*counts, strict=True)), strict=True))
        totals = {name: sum(values) for name, values in per_utterance.items()}
        found = {
            "frame_error_rate": totals["wrong"] / totals["frames"],
            "word_error_rate": totals["errors"] / totals["words"],
            **totals,
            "utterances": per_utterance,
        }
        return {"word_penalty": task.recogniser.word_penalty, "test": found}


@contextmanager
def _timed(fleet: Fleet) -> Iterator[None]:
    """Count the processor time of what is done inside."""
    begun = time.process_time()
    try:
        yield
    finally:
        fleet.seconds += time.process_time() - begun
