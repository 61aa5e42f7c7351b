"""The training loop: batch, step, evaluate, decide.  It does not know which strategy runs."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import numpy as np

from refimpl.optim.schedule import Newbob
from refimpl.run.care import Watcher
from refimpl.run.config import Run
from refimpl.run.folder import RunFolder, save
from refimpl.run.meeting import Meeting
from refimpl.run.modelfile import ModelFile
from refimpl.run.ready import Carried, Ready
from refimpl.run.report import epoch_text, error_rates, identity, peak_resident, plain
from refimpl.run.saving import Checkpoints
from refimpl.run.steplog import StepLog
from refimpl.run.tally import Epoch
from refimpl.state import reshard, tree
from refimpl.state.checkpoint import Saved
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import UserError
from refimpl.tasks.protocol import Say
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.ledger import LINKS, Count


class Trainer(Ready):
    """One run, trained.  ``log_every``: steps from one line of steps.jsonl to the next, or 0."""

    def __init__(
        self,
        comm: Communicator,
        run: Run,
        model: ModelFile,
        say: Say = print,
        log_every: int = 0,
        multiple: int = 1,
        carried: Carried | None = None,
    ) -> None:
        super().__init__(comm, run, model, say, multiple, carried)
        self.schedule = run.schedule()
        self.seconds, self.stopped = 0.0, False
        self.loss = float("nan")  # the mean of the last epoch
        self.warned: list[str] = []
        self.traffic = {link: Count() for link in LINKS}
        self.meeting = Meeting(comm, self.replica.faults, run.recipe.lr)
        every = log_every if comm.rank == 0 else 0  # only rank 0 writes
        frames = run.recipe.batch * run.recipe.microsteps
        self.steplog = StepLog(every, self.replica.gradient, comm.ledger, frames)
        self.epoch = self._next_epoch()

    @property
    def epochs(self) -> int:
        """How many epochs are over."""
        return -(-self.epoch.first // self.batches.steps_per_epoch)

    @property
    def total(self) -> int:
        """After how many steps the run ends, if its schedule does not end it before."""
        total = self.recipe.epochs * self.batches.steps_per_epoch
        return min(total, self.run.steps or total)

    def _next_epoch(self) -> Epoch:
        """Return an epoch that begins after the steps so far."""
        goes_back = isinstance(self.schedule, Newbob)
        saved = tree.copied(self.replica.state()) if goes_back else {}
        return Epoch(self.step, self.comm.ledger, saved)

    def train(
        self,
        folder: RunFolder | None = None,
        checkpoints: Checkpoints | None = None,
        watcher: Watcher | None = None,
    ) -> dict[str, Any]:
        """Run all epochs that are left and return the summary; rank 0 writes it to a folder."""
        per_epoch, total = self.batches.steps_per_epoch, self.total
        done = f", {self.step:,} of them taken" if self.step else ""
        self.say(
            f"{self.model.name}: {self.network.size:,} parameters, {self.batches.examples:,} "
            f"training {self.task.words.examples}, "
            f"{total:,} steps in {-(-total // per_epoch)} epochs{done}"
        )
        # A run that diverges is told so in one line, not by a warning for every product.
        with (
            folder or nullcontext(),
            checkpoints or nullcontext(),
            watcher or nullcontext(),
            self.comm.events.listen(self.meeting.clock),
            np.errstate(over="ignore", invalid="ignore"),
        ):
            self._keep()
            while self.step < total and not self.stopped:
                end = min(total, self.epoch.first + per_epoch)
                rate = self._steps(end, folder, checkpoints, watcher)
                self._conclude(rate, folder)
                if self.step < total and not self.stopped:
                    self._keep(checkpoints)
            if checkpoints is not None:
                checkpoints.save(self.step, self.state)
                checkpoints.settle()
            with self.replica.evaluated():
                summary = self._summary()
                with together(self.comm):
                    summary["parameters_sha256"] = save(folder, self.replica.partition.each())
            with together(self.comm):
                if folder is not None:
                    folder.finish(summary, self.task.saved())
        return summary

    def _refuse_divided_epoch(self) -> None:
        """Refuse to go on where an epoch was ended before its time, by ``--steps``."""
        within = self.step % self.batches.steps_per_epoch
        if self.step < self.total and self.epoch.first == self.step and within:
            raise UserError(
                f"the run was ended after {self.step} steps, inside an epoch of "
                f"{self.batches.steps_per_epoch}, and evaluated there: it cannot be made longer"
            )

    def _steps(
        self,
        end: int,
        folder: RunFolder | None,
        checkpoints: Checkpoints | None,
        watcher: Watcher | None,
    ) -> float:
        """Take steps until ``end`` and average what blocks there are; return the last rate."""
        per_epoch, first = self.batches.steps_per_epoch, self.epoch.first
        title = f"epoch {first // per_epoch + 1}"
        self.comm.barrier()
        if self.step == first:
            self.epoch.begin()
            self.steplog.begin()
        self.epoch.resume()
        while self.step < end:
            rate = self.schedule.rate(self.step, per_epoch)
            loss = self.replica.step(self.batch, rate)
            self.epoch.add(loss)
            self.step += 1
            line = self.steplog.line(self.step, rate, loss)
            if folder is not None and line is not None:
                folder.log_step(line)
            self.comm.events.progress(title, self.step - first, end - first)
            self.meeting.between(self.step - first, end - first)
            if watcher is not None:
                watcher.after(self.step, self.state)
            if self.step < end:
                self._keep(checkpoints)
        self.replica.end_block(rate)
        self.comm.barrier()
        self.epoch.lap()
        return rate

    def _keep(self, checkpoints: Checkpoints | None = None) -> None:
        """Between two steps: keep the state where that was asked for, in memory or on a disk.

        Models that are apart cannot go on in fewer blocks, so in memory it is that of the
        last moment when they were not.  Collective.
        """
        replica, grid = self.replica, self.grid
        together = replica.block is None or (
            replica.steps == replica.block_start and replica.block.together
        )
        if self.carried is not None and together:
            layout = replica.context.layout
            self.carried.keeper.keep(self.comm, grid, layout, self.step, self.state())
        if checkpoints is not None:
            checkpoints.between(self.step, self.state)

    def _conclude(self, rate: float, folder: RunFolder | None) -> None:
        """End an epoch: evaluate, decide the learning rate, re-align, say and write its line."""
        epoch = self.epoch.first // self.batches.steps_per_epoch + 1
        frames = (self.step - self.epoch.first) * self.frames_per_step
        sent, compression, slow = self.meeting.told(
            self.epoch.sent(), self.replica.gradient, self.epoch.seconds
        )
        self.traffic = {link: self.traffic[link] + count for link, count in sent.items()}
        self.loss = self.meeting.mean_loss(self.epoch.losses, frames)
        self.seconds += self.epoch.seconds
        with self.replica.evaluated():
            dev = self.task.evaluate("dev", self.outputs, self.comm, words=False)
        self.meeting.require_finite(dev, "dev", self.step)
        decision = self.schedule.decide(dev["loss"])
        self.stopped = decision.stop
        if not decision.accept:
            self.replica.load(self.epoch.saved)
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
            "loss": self.loss,
            "dev": dev,
            "accepted": decision.accept,
            "realigned": changed,
            "lr": rate,
            "seconds": self.epoch.seconds,
            "frames_per_second": frames / self.epoch.seconds,
            "ledger": plain(sent),
            "stragglers": slow,
            **self._statistics(compression),
        }
        with together(self.comm):
            if folder is not None:
                folder.log(line)
        self.say(epoch_text(line, self.task.words))
        self.epoch = self._next_epoch()

    def _statistics(self, compression: dict[str, Any]) -> dict[str, Any]:
        """Return what the gradient and block axes have to say of an epoch; warn if need be."""
        block = self.replica.block
        found = {"compression": compression, "blocks": block.statistics() if block else {}}
        for warning in (self.replica.faults.noticed, *self.replica.gradient.warnings()):
            kind = re.sub(r"[0-9.]\S*", "", warning or "")  # each once, whatever its numbers
            if warning and kind not in self.warned:
                self.say(f"warning: {warning}")
                self.warned.append(kind)
        return {name: numbers for name, numbers in found.items() if numbers}

    def _summary(self) -> dict[str, Any]:
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
            "loss": self.loss,
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
            "loss": Leaf(self.loss),
            "steplog": self.steplog.leaf(),
            **tree.under("epoch", self.epoch.state()),
        }

    def go_on(self, saved: Saved) -> None:
        """Take a state that was saved, of whatever grid.  Collective.

        Raises `UserError` if it is damaged, cannot be meant for this grid, or made longer.
        """
        comm, layout = self.comm, self.replica.context.layout
        with together(comm):
            saved.verify(comm.rank, comm.size)
            state = reshard.fitted(saved, self.state(), self.grid, comm.rank, layout)
        self.load(state)
        self._refuse_divided_epoch()

    def load(self, state: Tree) -> None:
        """Set what `state` returned.  Collective."""
        assert state["seed"].value == self.run.seed
        self.replica.load(tree.branch(state, "replica"))
        self.schedule.restore(tree.plain(tree.branch(state, "schedule")))
        self.task.load_state(tree.plain(tree.branch(state, "task")))
        for name in ("step", "stopped", "warned", "seconds", "loss"):
            setattr(self, name, state[name].value)
        self.replica.faults.step = self.step
        self.steplog.load(state["steplog"])
        self.epoch.restore(tree.branch(state, "epoch"))
        self.traffic = {link: Count(**count) for link, count in state["traffic"].value.items()}
