"""The training loop: batch, step, evaluate, report.  It does not know which strategy runs."""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.step import LOSS_UNIT, Replica
from refimpl.optim.schedule import Newbob
from refimpl.run.config import Run
from refimpl.run.folder import RunFolder
from refimpl.run.modelfile import ModelFile
from refimpl.run.steplog import StepLog
from refimpl.support.errors import Diverged, UserError
from refimpl.support.progress import Progress
from refimpl.support.text import size
from refimpl.tasks import table as tasks
from refimpl.tasks.batches import Batches
from refimpl.tasks.scoring import CHUNK, Examples
from refimpl.world.agree import together
from refimpl.world.groups import Groups
from refimpl.world.ledger import LINKS, Count, summed
from refimpl.world.topology import Nodes

if TYPE_CHECKING:
    from refimpl.nn import Sequential
    from refimpl.world.communicator import Communicator

Say = Callable[[str], None]


class Digest:
    """The SHA-256 of all parameters: name and little-endian bytes of each, in build order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def over(self, parameters: Iterable[tuple[str, NDArray]]) -> Iterator[tuple[str, NDArray]]:
        """Yield the parameters as they are, and take them into the digest on the way."""
        for name, value in parameters:
            self._sha256.update(name.encode())
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            self._sha256.update(np.ascontiguousarray(little))
            yield name, value

    def text(self) -> str:
        """Return the digest of what has passed, in hexadecimal."""
        return self._sha256.hexdigest()


def parameters_digest(parameters: dict[str, NDArray]) -> str:
    """Return the `Digest` of a whole model."""
    digest = Digest()
    for _ in digest.over(parameters.items()):
        pass
    return digest.text()


def plain(counts: dict[str, Count]) -> dict[str, dict[str, int]]:
    """Return counts per link class as plain data."""
    return {link: count._asdict() for link, count in counts.items()}


class Trainer:
    """One run on the ranks of ``comm``.  Collective: every rank makes one and calls the same."""

    def __init__(
        self,
        comm: Communicator,
        run: Run,
        model: ModelFile,
        say: Say = print,
        log_every: int = 0,
    ) -> None:
        run.check(comm.size)
        self.comm, self.run, self.model = comm, run, model
        self.say: Say = say if comm.rank == 0 else lambda text: None
        self.recipe = run.recipe
        self.grid = run.grid(comm.size)
        nodes, family = Nodes(comm.nodes), collectives.get(run.collectives)
        traffic.check(self.grid, nodes, family, run.stage)
        self.groups = Groups.split(comm, self.grid)
        self.say(self._announcement())
        self.task = tasks.prepare(comm, run, self.say)
        self.batches = Batches(
            self.task.train.count,
            self.recipe.batch,
            self.grid.micro_batches(self.recipe.microsteps),
            run.seed,
        )
        with together(comm):
            network = model.build(run.seed, self.task.inputs, self.task.classes, run.options)
        rows = max(self.recipe.batch, CHUNK)
        network.plan(rows, np.dtype(run.dtype))
        self._check_widths(network)
        self.network = network
        self.replica = Replica(
            network,
            self.groups,
            family,
            run.optimizer(),
            run.step_options(),
        )
        if isinstance(family, collectives.Auto):
            for line in traffic.choices(
                self.grid,
                nodes,
                self.replica.states.layout,
                family,
                run.stage,
                itemsize=np.dtype(run.dtype).itemsize,
                gradient_itemsize=8 if run.reduction == "exact" else None,
            ):
                self.say(line)
        dtype = np.dtype(run.dtype)
        self._x = np.zeros((rows, self.task.inputs), dtype)
        self._y = np.zeros(rows, np.int64)
        frames = self.recipe.batch * self.recipe.microsteps
        logged = log_every if comm.rank == 0 else 0  # only rank 0 writes
        self.steplog = StepLog(logged, self.replica, comm.ledger, frames)
        self.schedule = run.schedule()
        self.stopped = self.warned = False
        self.step = 0
        self.seconds = 0.0
        self.traffic = {link: Count() for link in LINKS}

    def _announcement(self) -> str:
        run, recipe = self.run, self.recipe
        nodes = len(set(self.comm.nodes))
        where = f" on {nodes} nodes" if nodes > 1 else ""
        steps = f" x {recipe.microsteps} micro-steps" if recipe.microsteps > 1 else ""
        ahead = ", next unit prefetched" if run.prefetch else ""
        return (
            f"{self.grid.sentence()}{where} ({run.strategy}), {run.collectives} collectives, "
            f"{run.reduction} reduction, {recipe.batch} frames per rank{steps}{ahead}"
        )

    def _check_widths(self, network: Sequential) -> None:
        for what, has, needs in (
            ("inputs", network.inputs, self.task.inputs),
            ("outputs", network.outputs, self.task.classes),
        ):
            if has != needs:
                raise UserError(
                    f"model {self.model.name} has {has} {what} but the data needs {needs}: "
                    "build(rng, inputs, classes) must use the widths it is given"
                )

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

    def train(self, folder: Callable[[], RunFolder] | None = None) -> dict[str, Any]:
        """Run all epochs and return the summary; write it to ``folder`` if there is one."""
        per_epoch = self.batches.steps_per_epoch
        total = self.recipe.epochs * per_epoch
        if self.run.steps is not None:
            total = min(total, self.run.steps)
        parameters = sum(layer.size for layer in self.network.units)
        self.say(
            f"{self.model.name}: {parameters:,} parameters, {self.task.train.count:,} training "
            f"frames, {total:,} steps in {-(-total // per_epoch)} epochs"
        )
        opened = self._open(folder)
        loss = float("nan")
        # A run that diverges is told so in one line, not by a warning for every product.
        with np.errstate(over="ignore", invalid="ignore"):
            while self.step < total and not self.stopped:
                loss = self._epoch(min(total, self.step + per_epoch) - self.step, opened)
        with self.replica.evaluated():
            summary = self._summary(loss)
            summary["parameters_sha256"] = self._save(opened)
        with together(self.comm):
            if opened is not None:
                opened.finish(summary, self.task.state())
        return summary

    def _save(self, folder: RunFolder | None) -> str:
        """Write the model to ``folder`` if there is one, and return its digest.

        Parameters are gathered, taken into the digest and written unit by unit: no rank needs
        room for the whole model.  Collective.
        """
        digest = Digest()
        passing = digest.over(self.replica.states.each())
        if folder is not None:
            folder.save_model(passing)
        for _ in passing:
            pass
        return digest.text()

    def _open(self, folder: Callable[[], RunFolder] | None) -> RunFolder | None:
        """Let rank 0 make the run's folder, now that everything before training went well."""
        opened = None
        with together(self.comm):
            if folder is not None and self.comm.rank == 0:
                opened = folder()
        return opened

    def _epoch(self, steps: int, folder: RunFolder | None) -> float:
        """Take so many steps, evaluate, decide the learning rate; return the mean loss."""
        per_epoch = self.batches.steps_per_epoch
        epoch = self.step // per_epoch
        before = self.comm.ledger.totals()
        saved = self.replica.snapshot() if isinstance(self.schedule, Newbob) else None
        progress = Progress(steps, f"epoch {epoch + 1}", shown=self.comm.rank == 0)
        self.comm.barrier()
        self.steplog.begin()
        start = time.perf_counter()
        for _ in range(steps):
            rate = self.schedule.rate(self.step, per_epoch)
            self.replica.step(self.batch, rate)
            self.step += 1
            line = self.steplog.line(self.step, rate)
            if folder is not None and line is not None:
                folder.log_step(line)
            progress.advance()
        self.replica.end_block(rate)
        self.comm.barrier()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        progress.close()
        frames = steps * self.recipe.batch * self.batches.micro_batches
        sent = self._count(before)
        loss = self._mean_loss(frames)

        with self.replica.evaluated():
            dev = self.task.evaluate("dev", self.outputs, self.comm, words=False)
        self._require_finite(math.isfinite(dev["loss"]))
        decision = self.schedule.decide(dev["loss"])
        self.stopped = decision.stop
        if not decision.accept:
            assert saved is not None
            self.replica.restore(saved)
        changed = None
        if self.task.realign_after(epoch + 1):
            with self.replica.evaluated():
                changed = self.task.realign(self.outputs, self.comm)
                again = self.task.evaluate("dev", self.outputs, self.comm, words=False)
            self.schedule.rebase(again["loss"])
        line = {
            "epoch": epoch + 1,
            "step": self.step,
            "frames": self.step * self.recipe.batch * self.batches.micro_batches,
            "loss": loss,
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
        note = "" if decision.accept else "; worse, weights restored"
        note += "" if changed is None else f"; {changed:.1%} of the targets re-aligned"
        self.say(
            f"epoch {epoch + 1}: loss {loss:.4f}, dev loss {dev['loss']:.4f}, "
            f"dev FER {dev['frame_error_rate']:.2%}, lr {rate:.4g}, "
            f"{frames / seconds:,.0f} frames/s, sent {size(sent['intra']['bytes'])} intra "
            f"{size(sent['inter']['bytes'])} inter{note}"
        )
        return loss

    def _statistics(self) -> dict[str, Any]:
        """Return what the gradient and block axes have to say, of rank 0; warn if need be."""
        replica, found = self.replica, {}
        numbers = replica.axis.statistics()
        if numbers:
            found["compression"] = numbers
            warning = replica.axis.warning()
            if warning and not self.warned:
                self.say(f"warning: {warning}")
                self.warned = True
        if replica.blocks.active:
            norm = replica.blocks.update_norm(self.groups.partition)
            found["blocks"] = {
                "synchronised": replica.blocks.synchronised,
                "block_update_norm": norm,
            }
        return found

    def _count(self, before: dict[str, Count]) -> dict[str, dict[str, int]]:
        """Return what all ranks sent since ``before``, and add it to the run's total."""
        mine = {link: now - before[link] for link, now in self.comm.ledger.totals().items()}
        sent = summed(self.comm.allgather_object(mine))
        self.traffic = {link: self.traffic[link] + count for link, count in sent.items()}
        return plain(sent)

    def _mean_loss(self, frames: int) -> float:
        """Return the mean loss of the epoch, the same for every world size."""
        sums = self.comm.allgather_object((self.replica.loss_units, self.replica.diverged))
        self.replica.loss_units = 0
        self._require_finite(not any(diverged for _, diverged in sums))
        return sum(units for units, _ in sums) * LOSS_UNIT / frames

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
        frames = self.step * self.recipe.batch * self.batches.micro_batches
        summary: dict[str, Any] = {
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
            "frames": frames,
            "seconds": self.seconds,
            "frames_per_second": frames / self.seconds,
            "loss": loss,
            "frame_error_rate": {s: score["frame_error_rate"] for s, score in scores.items()},
        }
        if all("word_error_rate" in score for score in scores.values()):
            rates = {s: score["word_error_rate"] for s, score in scores.items()}
            summary["word_error_rate"] = rates
        return summary | {
            "parameters": sum(layer.size for layer in self.network.units),
            "ledger": plain(self.traffic),
            "max_state_bytes_per_rank": max(memory),
            "max_resident_bytes_per_rank": max(self.comm.allgather_object(peak_resident())),
        }


def peak_resident() -> int:
    """Return the most bytes of memory that this process has had resident so far."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        # Where there is no /proc.  Linux would count the process that started this one, too.
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024  # the BSDs count in KB


def run_folder(path: Path, run: Run, model: ModelFile) -> Callable[[], RunFolder]:
    """Return what makes the run's folder when it is time."""
    return lambda: RunFolder.create(path, run.to_dict(), model.text)
