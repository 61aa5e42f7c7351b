"""The training loop: batch, step, evaluate, decide.  It does not know which strategy runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.step import Loss, Replica
from refimpl.nn.flat import one_unit
from refimpl.optim.schedule import Newbob
from refimpl.run import alike
from refimpl.run.config import Run
from refimpl.run.folder import RunFolder, save
from refimpl.run.meeting import Meeting
from refimpl.run.modelfile import ModelFile
from refimpl.run.report import (
    announcement,
    epoch_text,
    error_rates,
    identity,
    peak_resident,
    plain,
)
from refimpl.run.steplog import StepLog
from refimpl.state import tree
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import UserError
from refimpl.support.progress import Progress
from refimpl.tasks import table as tasks
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples, Say
from refimpl.tasks.scoring import CHUNK
from refimpl.world.agree import same, together
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.ledger import LINKS, Count
from refimpl.world.topology import Nodes


class Trainer:
    """One run on the ranks of ``comm``.  Collective: every rank makes one and calls the same.

    A context manager: `close` gives the groups back, after a `UserError` too.
    ``multiple``: of so many frames an epoch is a multiple, for runs that are compared.
    """

    def __init__(
        self,
        comm: Communicator,
        run: Run,
        model: ModelFile,
        say: Say = print,
        log_every: int = 0,
        multiple: int = 1,
    ) -> None:
        same(comm, alike.configuration(run))
        run.check(comm.size)
        comm = comm.by_node() if run.map == "by-node" else comm
        self.comm, self.run, self.model = comm, run, model
        self.say: Say = say if comm.rank == 0 else lambda text: None
        self.recipe, self.grid = run.recipe, run.grid(comm.size)
        self.nodes, self.methods = Nodes(comm.nodes), run.chosen()
        on_paper = run.setting(self.nodes, one_unit(1, self.grid.partition))
        traffic.check(self.methods, on_paper)
        self.schedule = run.schedule()
        self.step, self.seconds, self.stopped, self.warned = 0, 0.0, False, False
        self.traffic = {link: Count() for link in LINKS}
        self.groups = Groups.split(comm, self.grid)
        with self._freed_by_error():
            self.say(announcement(run, self.methods, on_paper))
            self._prepare(log_every, multiple)

    def _prepare(self, log_every: int, multiple: int) -> None:
        """Make what is trained, on what, and how."""
        comm, run, recipe = self.comm, self.run, self.recipe
        self.task = tasks.prepare(comm, recipe.task, recipe.settings, run.data, self.say)
        same(comm, alike.data(self.task))
        examples, micro = self.task.train.count, self.grid.micro_batches(recipe.microsteps)
        self.batches = Batches(examples, recipe.batch, micro, run.seed, multiple)
        rows, dtype = max(recipe.batch, CHUNK), np.dtype(run.dtype)
        inputs, classes = self.task.inputs, self.task.classes
        with together(comm):
            self.network = self.model.build(run.seed, inputs, classes, run.options)
            self.model.plan(self.network, rows, dtype, self.grid.partition)
        same(comm, alike.network(self.network, dtype))
        family, options = collectives.get(run.collectives), run.step_options()
        chosen = family, run.optimizer(), self.methods, options
        self.replica = Replica(self.network, self.groups, *chosen)
        self.meeting = Meeting(comm, self.replica.faults, recipe.lr)
        if isinstance(family, collectives.Auto):
            setting = run.setting(self.nodes, self.replica.context.layout)
            self.say("\n".join(traffic.choices(self.methods, setting)))
        self._x, self._y = np.zeros((rows, inputs), dtype), np.zeros(rows, np.int64)
        every = log_every if comm.rank == 0 else 0  # only rank 0 writes
        frames = recipe.batch * recipe.microsteps
        self.steplog = StepLog(every, self.replica.gradient, comm.ledger, frames)

    def close(self) -> None:
        """Give the communicators of the axes back; MPI has some thousand only.  Collective."""
        self.groups.free()

    @contextmanager
    def _freed_by_error(self) -> Iterator[None]:
        """Close after an error that all ranks raise; any other ends the whole job."""
        try:
            yield
        except UserError:
            self.close()
            raise

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, UserError):
            self.close()

    def batch(self, microstep: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's micro-batch of the current step."""
        number = self.grid.micro_batch(self.comm.rank, microstep, self.recipe.microsteps)
        index = self.batches.index(self.step, number)
        x, y = self._x[: index.size], self._y[: index.size]
        self.task.train.take(index, x, y)
        return x, y

    def outputs(self, examples: Examples, index: NDArray[np.int64]) -> np.ndarray:
        """Return the logits of examples, (B, classes); valid until the next call.  Collective."""
        x, y = self._x[: index.size], self._y[: index.size]
        examples.take(index, x, y)
        return self.replica.outputs(x)

    @property
    def frames(self) -> int:
        """Frames that all ranks together have trained on."""
        return self.step * self.recipe.batch * self.batches.micro_batches

    def train(self, path: Path | None = None) -> dict[str, Any]:
        """Run all epochs and return the summary; write a run folder at ``path``, if given."""
        per_epoch = self.batches.steps_per_epoch
        total = self.recipe.epochs * per_epoch
        total = min(total, self.run.steps or total)
        self.say(
            f"{self.model.name}: {self.network.size:,} parameters, {self.batches.examples:,} "
            f"training frames, {total:,} steps in {-(-total // per_epoch)} epochs"
        )
        folder = self._open(path)
        loss = float("nan")
        # A run that diverges is told so in one line, not by a warning for every product.
        with folder or nullcontext(), np.errstate(over="ignore", invalid="ignore"):
            while self.step < total and not self.stopped:
                loss = self._epoch(min(total, self.step + per_epoch) - self.step, folder)
            with self.replica.evaluated():
                summary = self._summary(loss)
                with together(self.comm):
                    summary["parameters_sha256"] = save(folder, self.replica.partition.each())
            with together(self.comm):
                if folder is not None:
                    folder.finish(summary, self.task.saved())
        return summary

    def _open(self, path: Path | None) -> RunFolder | None:
        """Let rank 0 make the run's folder, now that everything before training went well."""
        with together(self.comm):
            if path is None or self.comm.rank != 0:
                return None
            return RunFolder.create(path, self.run.to_dict(), self.model.text)

    def _epoch(self, steps: int, folder: RunFolder | None) -> float:
        """Take so many steps, evaluate, decide the learning rate; return the mean loss."""
        per_epoch = self.batches.steps_per_epoch
        epoch = self.step // per_epoch + 1
        before, frames = self.comm.ledger.totals(), self.frames
        saved = tree.copied(self.replica.state()) if isinstance(self.schedule, Newbob) else None
        progress = Progress(steps, f"epoch {epoch}", shown=self.comm.rank == 0)
        losses = Loss()
        self.comm.barrier()
        self.steplog.begin()
        start = time.perf_counter()
        for taken in range(1, steps + 1):
            rate = self.schedule.rate(self.step, per_epoch)
            loss = self.replica.step(self.batch, rate)
            losses += loss
            self.step += 1
            line = self.steplog.line(self.step, rate, loss)
            if folder is not None and line is not None:
                folder.log_step(line)
            progress.advance()
            self.meeting.between(taken, steps)
        self.replica.end_block(rate)
        self.comm.barrier()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        progress.close()
        frames = self.frames - frames
        sent, compression = self.meeting.told(before, self.replica.gradient)
        self.traffic = {link: self.traffic[link] + count for link, count in sent.items()}
        mean = self.meeting.mean_loss(losses, frames)

        with self.replica.evaluated():
            dev = self.task.evaluate("dev", self.outputs, self.comm, words=False)
        self.meeting.require_finite(dev, "dev", self.step)
        decision = self.schedule.decide(dev["loss"])
        self.stopped = decision.stop
        if not decision.accept:
            assert saved is not None
            self.replica.load(saved)
        changed = None
        if self.task.realign_after(epoch):
            with self.replica.evaluated():
                changed = self.task.realign(self.outputs, self.comm)
                again = self.task.evaluate("dev", self.outputs, self.comm, words=False)
            self.schedule.rebase(again["loss"])
        line = {
            "epoch": epoch,
            "step": self.step,
            "frames": self.frames,
            "loss": mean,
            "dev": dev,
            "accepted": decision.accept,
            "realigned": changed,
            "lr": rate,
            "seconds": seconds,
            "frames_per_second": frames / seconds,
            "ledger": plain(sent),
            **self._statistics(compression),
        }
        with together(self.comm):
            if folder is not None:
                folder.log(line)
        self.say(epoch_text(line))
        return mean

    def _statistics(self, compression: dict[str, Any]) -> dict[str, Any]:
        """Return what the gradient and block axes have to say of an epoch; warn if need be."""
        block = self.replica.block
        found = {"compression": compression, "blocks": block.statistics() if block else {}}
        warning = self.replica.faults.noticed or self.replica.gradient.warning()
        if warning and not self.warned:
            self.say(f"warning: {warning}")
            self.warned = True
        return {name: numbers for name, numbers in found.items() if numbers}

    def _summary(self, loss: float) -> dict[str, Any]:
        self.task.tune(self.outputs, self.comm)
        scores = {s: self.task.evaluate(s, self.outputs, self.comm) for s in ("dev", "test")}
        for split, score in scores.items():
            self.meeting.require_finite(score, split, self.step)
        return {
            "model": self.model.name,
            **identity(self.run, self.grid),
            "steps": self.step,
            "frames": self.frames,
            "seconds": self.seconds,
            "frames_per_second": self.frames / self.seconds,
            "loss": loss,
            **error_rates(scores),
            "parameters": self.network.size,
            "ledger": plain(self.traffic),
            "max_state_bytes_per_rank": max(self.comm.allgather_object(self.replica.state_bytes)),
            "max_resident_bytes_per_rank": max(self.comm.allgather_object(peak_resident())),
        }

    def state(self) -> Tree:
        """Return everything that this run is, between two steps; arrays are not copies.

        The data's order, initial values and every other draw follow from the seed and the step.
        """
        return {
            **tree.under("replica", self.replica.state()),
            **tree.under("schedule", tree.whole(self.schedule.state())),
            **tree.under("task", tree.whole(self.task.state())),
            "seed": Leaf(self.run.seed),
            "step": Leaf(self.step),
            "stopped": Leaf(self.stopped),
            "warned": Leaf(self.warned),
            "seconds": Leaf(self.seconds),
            "traffic": Leaf(plain(self.traffic)),
        }

    def load(self, state: Tree) -> None:
        """Set what `state` returned.  Collective."""
        assert state["seed"].value == self.run.seed
        self.replica.load(tree.branch(state, "replica"))
        self.schedule.restore(tree.plain(tree.branch(state, "schedule")))
        self.task.load_state(tree.plain(tree.branch(state, "task")))
        for name in ("step", "stopped", "warned", "seconds"):
            setattr(self, name, state[name].value)
        self.traffic = {link: Count(**count) for link, count in state["traffic"].value.items()}
