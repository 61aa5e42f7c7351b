"""A run in its folder: begun there, or gone on with from its newest checkpoint.

What goes on is what the folder holds: the run as it was told, the model file's text, its habits.
It may have other ranks, and then another grid: the micro-batches of a step stay as many.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from refimpl.methods import strategies
from refimpl.run import alike, claim
from refimpl.run.care import Care, Watcher
from refimpl.run.config import Run, override
from refimpl.run.folder import STATE, RunFolder
from refimpl.run.modelfile import ModelFile
from refimpl.run.ready import Carried
from refimpl.run.reopen import reading
from refimpl.run.saving import CHECKPOINTS, Checkpoints, Habits, clear
from refimpl.run.trainer import Trainer
from refimpl.state import checkpoint
from refimpl.state.checkpoint import Checkpoint, Saved
from refimpl.support.errors import UserError, brief, listed, require, typed
from refimpl.tasks.protocol import Say
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.topology import Grid
from refimpl.world.trace import Trace

# What may be told anew: where a run ends, where its data are, and the ranks that it has.
ANEW = frozenset(
    ("--epochs", "--steps", "--data", "--strategy", "--collectives", "--links")
    + ("--ranks-per-node", "--map")
)


@dataclass(frozen=True)
class Job:
    """A run and its folder.

    ``resumed``: whether the folder was there.  ``saved``: the checkpoint to go on from; a run
    that was resumed before there was one begins anew.  ``trace``: a file to draw steps in.
    """

    comm: Communicator
    path: Path
    run: Run
    model: ModelFile
    habits: Habits = field(default_factory=Habits)
    log_every: int = 0
    resumed: bool = False
    saved: Saved | None = None
    care: Care = field(default_factory=Care)
    trace: tuple[Path, tuple[int, int]] | None = None

    @classmethod
    def open(cls, comm: Communicator, path: Path) -> Job:
        """Read a run's folder on every rank; rank 0 removes what is incomplete.  Collective."""
        with together(comm):
            folder = RunFolder.begun(path)
            told = folder.told()
            with reading(path / STATE):
                habits = typed(Habits, told.get("habits", {}), "checkpoint habit")
                care = typed(Care, told.get("care", {}), "kind of care")
                log_every = told.get("log_every", 0)
                logs = type(log_every) is int and log_every >= 0
                require(logs, f"log_every is {brief(log_every)}: give 0 or more")
            if comm.rank == 0:
                clear(path)
            complete = checkpoint.steps(path / CHECKPOINTS)
            saved = Checkpoint(complete[-1][1]) if complete else None
            run = Run.from_dict(folder.config() if saved is None else saved.config)
            name, file = Path(run.model).stem, str(path / "model.py")
            model = ModelFile.parse(name, folder.model_text(), file)
        return cls(comm, path, run, model, habits, log_every, True, saved, care)

    def changed(self, given: dict[str, Any]) -> Job:
        """Return the job with what was given again of its `Run`, by field, on these ranks.

        Raises
        ------
        UserError
            If something is given that must stay and differs, or the ranks do not divide the
            micro-batches of a step.
        """
        run, changes = self.run, dict(given)
        recipe = override(run.recipe, changes.pop("recipe"))
        if changes.get("strategy", run.strategy) == run.strategy:
            changes["methods"] = run.methods | changes["methods"]
        changes["options"] = run.options | changes.get("options", {})
        if changes.get("collectives", run.collectives) != run.collectives:
            changes = {"links": None} | changes  # the old ones' go with them
        new = replace(run, recipe=recipe, **changes)
        was, now = alike.configuration(run), alike.configuration(new)
        may = ANEW | {known.flag for known in strategies.grid_options().values()}
        for name in sorted(now.keys() | was.keys()):
            before, after = was.get(name), now.get(name)
            if before != after and name not in may:
                raise UserError(
                    f"--resume {self.path}: {name} was {before} and is given as {after}: leave it "
                    f"out; only {listed(may)} and the number of ranks may change"
                )
        if self.saved is not None:
            batches = self.saved.grid.micro_batches(run.recipe.microsteps)
            require(
                batches % self.comm.size == 0,
                f"--resume {self.path}: a step has {batches} micro-batches, which "
                f"{self.comm.size} ranks cannot share: start as many as divide {batches}",
            )
            new = shared(new, batches, self.comm.size)
        return replace(self, run=new)

    def train(
        self,
        say: Say,
        saving: type[Checkpoints] = Checkpoints,
        hung: Callable[[str], None] = print,
        carried: Carried | None = None,
    ) -> dict[str, Any]:
        """Train to the end and return the summary; ``hung`` ends a job that hangs.  Collective."""
        comm, run, config = self.comm, self.run, self.run.to_dict()
        with Trainer(comm, run, self.model, say, self.log_every, carried=carried) as trainer:
            if self.saved is not None:
                trainer.go_on(self.saved)
            told: dict[str, Any] = {"habits": asdict(self.habits), "care": asdict(self.care)}
            told["log_every"] = self.log_every
            folder = None
            with together(comm):
                if comm.rank == 0 and self.resumed:
                    folder = RunFolder(self.path, told)
                    folder.go_on(config, trainer.epochs, trainer.step)
                elif comm.rank == 0:
                    folder = RunFolder.create(self.path, config, self.model.text, told)
            checkpoints, layout = None, trainer.replica.context.layout
            if self.habits.any:
                head = {"config": config, "grid": asdict(trainer.grid)}
                checkpoints = saving(
                    trainer.comm, trainer.grid, layout, self.path, head, self.habits, trainer.say
                )
                checkpoints.saved = trainer.step if isinstance(self.saved, Checkpoint) else None
            groups, step, saves = trainer.groups, trainer.step, self.habits.any
            watcher = Watcher(self.care, groups, layout, step, self.path, hung, saves)
            with Trace(trainer.comm, *self.trace, step) if self.trace else nullcontext():
                return trainer.train(folder, checkpoints, watcher)


def shared(run: Run, batches: int, ranks: int) -> Run:
    """Return the run on so many ranks, which share the micro-batches of a step."""
    return replace(run, recipe=replace(run.recipe, microsteps=batches // ranks))


def most_ranks(run: Run, was: Grid, batches: int, most: int) -> int | None:
    """Return the most ranks, of ``most``, that can go on with a run of so many micro-batches.

    Where there ``was`` more than one block there must be again.
    """
    for ranks in range(most, 0, -1):
        with suppress(UserError):
            if batches % ranks == 0:
                shared(run, batches, ranks).check(ranks)
                if (run.grid(ranks).blocks > 1) == (was.blocks > 1):
                    return ranks
    return None


def left_by_this_job(out: Path) -> bool:
    """Return whether this SLURM job was requeued and has a checkpoint in its folder."""
    return claim.left_by_this_job(out) and bool(checkpoint.steps(out / CHECKPOINTS))
