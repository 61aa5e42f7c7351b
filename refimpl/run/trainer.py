"""The training loop: batch, step, evaluate, decide.  It does not know which strategy runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import collectives
from refimpl.collectives import small
from refimpl.methods import traffic
from refimpl.methods.step import LOSS_UNIT, Loss, Replica
from refimpl.nn.flat import one_unit
from refimpl.optim.schedule import Newbob
from refimpl.run.config import Run
from refimpl.run.folder import RunFolder
from refimpl.run.modelfile import ModelFile
from refimpl.run.report import announcement, epoch_text, error_rates, peak_resident, plain
from refimpl.run.steplog import StepLog
from refimpl.state import tree
from refimpl.state.digest import Digest
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import Diverged
from refimpl.support.progress import Progress
from refimpl.tasks import table as tasks
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples
from refimpl.tasks.scoring import CHUNK
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.ledger import LINKS, Count, summed
from refimpl.world.topology import Nodes

Say = Callable[[str], None]


class Trainer:
    """One run on the ranks of ``comm``.  Collective: every rank makes one and calls the same.

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
        run.check(comm.size)
        self.comm, self.run, self.model = comm, run, model
        self.say: Say = say if comm.rank == 0 else lambda text: None
        self.recipe, self.grid, methods = run.recipe, run.grid(comm.size), run.chosen()
        nodes = Nodes(comm.nodes)
        traffic.check(methods, run.setting(nodes, one_unit(1, self.grid.partition)))
        self.groups = Groups.split(comm, self.grid)
        self.say(announcement(run, self.grid, nodes.count))
        self.task = tasks.prepare(comm, run.recipe.task, run.recipe.settings, run.data, self.say)
        self.batches = Batches(
            self.task.train.count,
            self.recipe.batch,
            self.grid.micro_batches(self.recipe.microsteps),
            run.seed,
            multiple,
        )
        with together(comm):
            self.network = model.build(run.seed, self.task.inputs, self.task.classes, run.options)
        rows, dtype = max(self.recipe.batch, CHUNK), np.dtype(run.dtype)
        self.network.plan(rows, dtype)
        self.replica = Replica(
            self.network,
            self.groups,
            collectives.get(run.collectives),
            run.optimizer(),
            methods,
            run.step_options(),
        )
        setting = run.setting(nodes, self.replica.context.layout)
        if isinstance(setting.collectives, collectives.Auto):
            for line in traffic.choices(methods, setting):
                self.say(line)
        self._x = np.zeros((rows, self.task.inputs), dtype)
        self._y = np.zeros(rows, np.int64)
        frames = self.recipe.batch * self.recipe.microsteps
        logged = log_every if comm.rank == 0 else 0  # only rank 0 writes
        self.steplog = StepLog(logged, self.replica.gradient, comm.ledger, frames)
        self.schedule = run.schedule()
        self.stopped = self.warned = False
        self.step = 0
        self.seconds = 0.0
        self.traffic = {link: Count() for link in LINKS}

    def batch(self, microstep: int) -> tuple[NDArray, NDArray]:
        """Return this rank's micro-batch of the current step."""
        number = self.grid.micro_batch(self.comm.rank, microstep, self.recipe.microsteps)
        index = self.batches.index(self.step, number)
        x, y = self._x[: index.size], self._y[: index.size]
        self.task.train.take(index, x, y)
        return x, y

    def outputs(self, examples: Examples, index: NDArray[np.int64]) -> NDArray:
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
        if self.run.steps is not None:
            total = min(total, self.run.steps)
        parameters = sum(layer.size for layer in self.network.units)
        self.say(
            f"{self.model.name}: {parameters:,} parameters, {self.task.train.count:,} training "
            f"frames, {total:,} steps in {-(-total // per_epoch)} epochs"
        )
        folder = self._open(path)
        loss = float("nan")
        # A run that diverges is told so in one line, not by a warning for every product.
        with np.errstate(over="ignore", invalid="ignore"):
            while self.step < total and not self.stopped:
                loss = self._epoch(min(total, self.step + per_epoch) - self.step, folder)
        with self.replica.evaluated():
            summary = self._summary(loss)
            summary["parameters_sha256"] = self._save(folder)
        with together(self.comm):
            if folder is not None:
                folder.finish(summary, self.task.saved())
        return summary

    def _save(self, folder: RunFolder | None) -> str:
        """Write the model to ``folder`` if there is one, and return its digest.

        Parameters are gathered, taken into the digest and written unit by unit: no rank needs
        room for the whole model.  Collective.
        """
        digest = Digest()
        passing = digest.over(self.replica.partition.each())
        if folder is not None:
            folder.save_model(passing)
        for _ in passing:
            pass
        return digest.text()

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
        for _ in range(steps):
            rate = self.schedule.rate(self.step, per_epoch)
            loss = self.replica.step(self.batch, rate)
            losses += loss
            self.step += 1
            line = self.steplog.line(self.step, rate, loss)
            if folder is not None and line is not None:
                folder.log_step(line)
            progress.advance()
        self.replica.end_block(rate)
        self.comm.barrier()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        progress.close()
        frames = self.frames - frames
        sent = self._count(before)
        mean = self._mean_loss(losses, frames)

        with self.replica.evaluated():
            dev = self.task.evaluate("dev", self.outputs, self.comm, words=False)
        self._require_finite(math.isfinite(dev["loss"]))
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
            "ledger": sent,
            **self._statistics(),
        }
        if folder is not None:
            folder.log(line)
        self.say(epoch_text(line))
        return mean

    def _statistics(self) -> dict[str, Any]:
        """Return what the gradient and block axes have to say, of rank 0; warn if need be."""
        gradient, block = self.replica.gradient, self.replica.block
        found = {"compression": gradient.statistics()}
        warning = gradient.warning()
        if warning and not self.warned:
            self.say(f"warning: {warning}")
            self.warned = True
        if block is not None:
            found["blocks"] = block.statistics()
        return {name: numbers for name, numbers in found.items() if numbers}

    def _count(self, before: dict[str, Count]) -> dict[str, dict[str, int]]:
        """Return what all ranks sent since ``before``, and add it to the run's total."""
        mine = {link: now - before[link] for link, now in self.comm.ledger.totals().items()}
        sent = summed(self.comm.allgather_object(mine))
        self.traffic = {link: self.traffic[link] + count for link, count in sent.items()}
        return plain(sent)

    def _mean_loss(self, losses: Loss, frames: int) -> float:
        """Return the mean loss of the epoch, the same for every world size."""
        units, broken = small.summed(self.comm, (losses.units, int(not losses.finite)))
        self._require_finite(not broken)
        return units * LOSS_UNIT / frames

    def _require_finite(self, finite: bool) -> None:
        if not finite:
            raise Diverged(
                f"training diverged before step {self.step}: the loss is not finite; lower "
                f"--lr (it is {self.recipe.lr:g}) or set --clip"
            )

    def _summary(self, loss: float) -> dict[str, Any]:
        self.task.tune(self.outputs, self.comm)
        scores = {s: self.task.evaluate(s, self.outputs, self.comm) for s in ("dev", "test")}
        memory = self.comm.allgather_object(self.replica.state_bytes)
        return {
            "model": self.model.name,
            "strategy": self.run.strategy,
            "world_size": self.comm.size,
            "partition": self.grid.partition,
            "gtc_group": self.grid.gradient,
            "blocks": self.grid.blocks,
            "reduction": self.run.reduction,
            "collectives": self.run.collectives,
            "seed": self.run.seed,
            "steps": self.step,
            "frames": self.frames,
            "seconds": self.seconds,
            "frames_per_second": self.frames / self.seconds,
            "loss": loss,
            **error_rates(scores),
            "parameters": sum(layer.size for layer in self.network.units),
            "ledger": plain(self.traffic),
            "max_state_bytes_per_rank": max(memory),
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
