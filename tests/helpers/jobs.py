"""Runs in folders on ranks that are threads: of any row, killed where one likes, and resumed."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from loopback import spawn
from rows import Case

from benchmarks.kills import left
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.resume import Job
from refimpl.run.saving import Checkpoints, Habits
from refimpl.state import checkpoint
from refimpl.tasks.images.task import ImageExamples, ImageTask

MODEL = """
from refimpl.nn import Affine, Sequential, Tanh
from refimpl.run.config import Recipe

def build(seed, inputs, classes):
    return Sequential(Affine("a", inputs, 3, seed), Tanh(), Affine("b", 3, classes, seed))

def recipe():
    return Recipe("images", 1, 0.1)
"""


class Killed(BaseException):
    """What happens to a process that gets no word in."""


def images():
    """A task of 96 images of 6 pixels, of three kinds."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (96, 2, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 96)
    return ImageTask(6, {name: ImageExamples(pixels, labels) for name in ("train", "dev", "test")})


def run_of(case: Case, micro_batches=8, **changes) -> Run:
    """Return a run of two epochs of six steps; a step has so many micro-batches of two."""
    options, given = case.row.options(), dict(case.given)
    shown = {}
    for method in filter(None, case.methods):
        shown |= method.example(case.grid.blocks, 5)
    methods = {
        key: next((word for word, v in known.choices.items() if v == value), value)
        for key, known in options.items()
        if key not in given and (value := shown.get(known.field)) is not None
    }
    share = {"batch": 2, "microsteps": micro_batches // case.world, "methods": methods}
    share |= {"schedule": "newbob", "clip": 1.0, **changes.pop("recipe", {})}
    recipe = Recipe("images", 2, 0.5, **share)
    return Run("net", recipe, strategy=case.name, methods=given, **changes)


def job(comm, path, run, **habits) -> Job:
    """Return a new run's job, saved after every fourth step."""
    model = ModelFile.parse("net", MODEL, "net.py")
    habits = Habits(**{"steps": 4, "background": False} | habits)
    return Job(comm, path, run, model, habits, log_every=2)


def until(after: int) -> type[Checkpoints]:
    """Return checkpoints whose rank is killed between two steps, once one was begun there."""

    class Fatal(Checkpoints):
        def between(self, step, state):
            super().between(step, state)
            if step == after:
                raise Killed

    return Fatal


def trained(make, world: int, saving: type[Checkpoints] = Checkpoints):
    """Train the jobs that ``make(comm)`` returns, until they end or are killed."""

    def body(comm):
        with suppress(Killed):
            make(comm).train(lambda text: None, saving)

    spawn((0,) * world, body)


def whole(path: Path, run: Run, world: int, **habits):
    """Train to the end; return what is `left`."""
    trained(lambda comm: job(comm, path, run, **habits), world)
    return left(path)


def killed(path: Path, run: Run, world: int, after: int, **habits) -> None:
    """Train until all ranks are killed after so many steps."""
    trained(lambda comm: job(comm, path, run, **habits), world, until(after))


def again(comm, path: Path, **given) -> Job:
    """Return a job that was opened again, with what is given anew."""
    return Job.open(comm, path).changed({"recipe": {}, "methods": {}, **given})


def resumed(path: Path, world: int, after: int | None = None, **given):
    """Go on to the end, or until killed; return what is `left`."""
    saving = Checkpoints if after is None else until(after)
    trained(lambda comm: again(comm, path, **given), world, saving)
    return left(path) if after is None else None


def newest(path: Path) -> int:
    """Return the step of the newest complete checkpoint, or 0."""
    return max([0, *(step for step, _ in checkpoint.steps(path / "checkpoints"))])


def told(path: Path):
    """Return what state.json says."""
    return json.loads((path / "state.json").read_text())


def with_epochs(run: Run, epochs: int) -> Run:
    """Return a run of so many epochs."""
    return replace(run, recipe=replace(run.recipe, epochs=epochs))
