"""The tasks that a recipe can name, and how a run's data become one.

A task (`refimpl.tasks.acoustic.task`, `refimpl.tasks.images.task`) gives the trainer::

    inputs, classes                     widths of the network's input and output
    train                               Examples: count, inputs, labels, take(index, x, y)
    evaluate(split, outputs, comm)      scores of a split: a dict of plain numbers
    realign_after(epoch), realign(..)   new training targets from the network
    tune(outputs, comm)                 what is chosen on the dev set after training
    state(), restore(state)             plain data saved with a run, so that it can score later
    folders(directory), load(...)       other data for a restored task

``outputs(examples, index) -> logits`` is given by the trainer and collective: every rank calls it
equally often, with an empty index where it has nothing left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.support.errors import UserError, listed
from refimpl.tasks.acoustic import features
from refimpl.tasks.acoustic.builtin import builtin_corpus
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.images.task import ImageTask

if TYPE_CHECKING:
    from refimpl.run.config import Run
    from refimpl.world.communicator import Communicator

TASKS: dict[str, Any] = {"acoustic": AcousticTask, "images": ImageTask}


def kind(name: str) -> Any:
    """Return the task class of this name, or raise a `UserError` that lists the names."""
    if name not in TASKS:
        raise UserError(f"no task {name!r}: a recipe names one of {listed(TASKS)}")
    return TASKS[name]


def prepare(comm: Communicator, run: Run, say: Callable[[str], None]) -> Any:
    """Return the task of a run, its data read.  Collective."""
    task, settings = kind(run.recipe.task), run.recipe.settings
    if task is ImageTask:
        return ImageTask.prepare(comm, run.data)
    known = [field.name for field in fields(AcousticSettings)]
    for name in settings:
        if name not in known:
            raise UserError(f"no acoustic setting {name!r}: there are {listed(known)}")
    cache = features.default_cache()
    directory = Path(run.data) if run.data else builtin_corpus(comm, cache, say)
    return AcousticTask.prepare(comm, directory, AcousticSettings(**settings), cache)
